"""ViT's and DeiT's weights under others' names: timm's and DeiT's authors', transformers', the JAX arrays."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from vitrail.models.checkpoint import Key


def _transposed(kernel: Tensor) -> Tensor:
    """Flax keeps kernels as (in, out) or (rows, columns, in, out)."""
    return kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.t()


def _flat(vector: Tensor) -> Tensor:
    return vector.flatten()


def _jax_keys() -> Iterator[Key]:
    """google-research/vision_transformer: slashes of the `.npz` names read as dots."""
    yield Key("cls", "class_token")
    yield Key("Transformer.posembed_input.pos_embedding", "pos_embed.table")
    dense = {"embedding": "stem.proj", "head": "head", "pre_logits": "pre_logits.0", "conv_root": "stem.resnet.conv"}
    norms = {"Transformer.encoder_norm": "norm", "gn_root": "stem.resnet.norm"}
    block, ours = "Transformer.encoderblock_{i}", "blocks.{i}"
    norms |= {f"{block}.LayerNorm_0": f"{ours}.norm1", f"{block}.LayerNorm_2": f"{ours}.norm2"}
    dense |= {f"{block}.MlpBlock_3.Dense_{n}": f"{ours}.mlp.fc{n + 1}" for n in (0, 1)}
    attention = f"{block}.MultiHeadDotProductAttention_1"
    for index, role in enumerate(("query", "key", "value")):
        qkv, part = f"{ours}.token_mixer.qkv", (index, 3)
        yield Key(f"{attention}.{role}.kernel", f"{qkv}.weight", part, lambda kernel: kernel.flatten(1).t())
        yield Key(f"{attention}.{role}.bias", f"{qkv}.bias", part, _flat)
    yield Key(f"{attention}.out.kernel", f"{ours}.token_mixer.proj.weight", convert=lambda k: k.flatten(0, 1).t())
    yield Key(f"{attention}.out.bias", f"{ours}.token_mixer.proj.bias")
    unit, bottleneck = "block{s+1}.unit{u+1}", "stem.resnet.stages.{s}.{u}"
    dense |= {f"{unit}.conv{n}": f"{bottleneck}.conv{n}" for n in (1, 2, 3)}
    dense[f"{unit}.conv_proj"] = f"{bottleneck}.shortcut.0"
    norms |= {f"{unit}.gn{n}": f"{bottleneck}.norm{n}" for n in (1, 2, 3)}
    norms[f"{unit}.gn_proj"] = f"{bottleneck}.shortcut.1"
    for theirs, name in dense.items():
        yield Key(f"{theirs}.kernel", f"{name}.weight", convert=_transposed)
        yield Key(f"{theirs}.bias", f"{name}.bias")
    for theirs, name in norms.items():
        yield Key(f"{theirs}.scale", f"{name}.weight", convert=_flat)
        yield Key(f"{theirs}.bias", f"{name}.bias", convert=_flat)


def _transformers_keys() -> Iterator[Key]:
    """The names of transformers' ``ViTForImageClassification`` and ``DeiTForImageClassificationWithTeacher``."""
    yield from (Key("classifier", "head"), Key("cls_classifier", "head"), Key("distillation_classifier", "head_dist"))
    for scope in ("vit", "deit"):
        embeddings, layer, ours = f"{scope}.embeddings", f"{scope}.encoder.layer.{{i}}", "blocks.{i}"
        yield Key(f"{embeddings}.cls_token", "class_token")
        yield Key(f"{embeddings}.distillation_token", "distillation_token")
        yield Key(f"{embeddings}.position_embeddings", "pos_embed.table")
        yield Key(f"{embeddings}.patch_embeddings.projection", "stem.proj")
        for index, role in enumerate(("query", "key", "value")):
            yield Key(f"{layer}.attention.attention.{role}", f"{ours}.token_mixer.qkv", (index, 3))
        yield Key(f"{layer}.attention.output.dense", f"{ours}.token_mixer.proj")
        yield Key(f"{layer}.intermediate.dense", f"{ours}.mlp.fc1")
        yield Key(f"{layer}.output.dense", f"{ours}.mlp.fc2")
        yield Key(f"{layer}.layernorm_before", f"{ours}.norm1")
        yield Key(f"{layer}.layernorm_after", f"{ours}.norm2")
        yield Key(f"{scope}.layernorm", "norm")


CHECKPOINT_KEYS = {
    "timm": (
        Key("cls_token", "class_token"),
        Key("dist_token", "distillation_token"),
        Key("pos_embed", "pos_embed.table"),
        Key("patch_embed.proj", "stem.proj"),
        Key("patch_embed.backbone", "stem.resnet"),
        Key("patch_embed.backbone.stem", "stem.resnet"),
        Key("patch_embed.backbone.stages.{s}.blocks.{u}", "stem.resnet.stages.{s}.{u}"),
        Key("patch_embed.backbone.stages.{s}.blocks.{u}.downsample.conv", "stem.resnet.stages.{s}.{u}.shortcut.0"),
        Key("patch_embed.backbone.stages.{s}.blocks.{u}.downsample.norm", "stem.resnet.stages.{s}.{u}.shortcut.1"),
        Key("blocks.{i}.attn", "blocks.{i}.token_mixer"),
        Key("pre_logits.fc", "pre_logits.0"),
    ),
    "jax": tuple(_jax_keys()),
    "transformers": tuple(_transformers_keys()),
}
