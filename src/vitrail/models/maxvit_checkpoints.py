"""MaxViT's weights under others' names: timm's, the authors' TensorFlow variables, and a refusal of torchvision's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoint import Key

SCOPES = ("stem", "block_", "final_layer_norm", "cls_head")
"""Outermost variable scopes of the network itself; the trainer adds the scopes before them."""

NORM_NAMES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def from_tensorflow(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The authors' TensorFlow variables, laid out as PyTorch has them, for the layout "tensorflow" below.

    Args:
        arrays: variable name -> value, as ``tf.train.load_variable`` gives it. Averaged copies replace the raw ones;
            optimiser state and counters are left out.
    """
    averaged: dict[str, Tensor] = {}
    raw: dict[str, Tensor] = {}
    for name, array in arrays.items():
        *scopes, leaf = name.split(":")[0].split("/")
        target = raw
        if leaf == "ExponentialMovingAverage":
            target, leaf = averaged, scopes.pop()
        start = next((i for i, scope in enumerate(scopes) if scope.startswith(SCOPES)), None)
        if start is None or leaf not in ("kernel", "depthwise_kernel", "weight", "bias", "relative_bias", *NORM_NAMES):
            continue
        layer, tensor = ".".join(scopes[start:]), torch.from_numpy(np.array(array))
        target[f"{layer}.{_LEAVES.get(leaf, leaf)}"] = _as_torch(scopes[-1], leaf, tensor)
        if leaf == "moving_mean":
            target[f"{layer}.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    return raw | averaged


_LEAVES = NORM_NAMES | {"kernel": "weight", "depthwise_kernel": "weight"}


def _as_torch(layer: str, leaf: str, tensor: Tensor) -> Tensor:
    if leaf == "kernel":  # height, width, in, out
        return tensor.permute(3, 2, 0, 1)
    if leaf == "depthwise_kernel":  # height, width, channels, 1
        return tensor.permute(2, 3, 0, 1)
    if layer in ("q", "k", "v"):  # weight: in, heads, head_dim; bias: heads, head_dim
        return tensor.flatten(1).t() if leaf == "weight" else tensor.flatten()
    if leaf == "weight":  # in, out; the projection after attention: heads, head_dim, out
        return tensor.flatten(0, -2).t()
    return tensor


def _refuse_torchvision(tensor: Tensor) -> Tensor:  # noqa: ARG001 (a row's convert takes the tensor)
    raise CheckpointError(
        "this is torchvision's maxvit_t, a different network from MaxViT-T (attention scale, GELU, padding and "
        "shortcuts differ), so its weights cannot be loaded; use timm's maxvit_tiny_tf_224, or torchvision itself"
    )


_MBCONV = {
    "pre_norm": ("pre_norm", "pre_norm"),
    "conv1_1x1": ("expand_conv", "expand.conv"),
    "norm1": ("expand_norm", "expand.norm"),
    "conv2_kxk": ("depthwise_conv", "depthwise.conv"),
    "norm2": ("depthwise_norm", "depthwise.norm"),
    "se.fc1": ("se.reduce_conv2d", "se.fc1"),
    "se.fc2": ("se.expand_conv2d", "se.fc2"),
    "conv3_1x1": ("shrink_conv", "project"),
    "shortcut.expand": ("shortcut_conv", "shortcut.proj"),
}
"""timm's name -> (TensorFlow's, ours) inside a convolution block."""

_BLOCK = "stages.{s}.blocks.{j}"


def _tensorflow_attention(suffix: str, ours: str) -> tuple[Key, ...]:
    """The authors number the layers of the second half of a block, the grid's, with ``_1``."""
    block, ours = "block_{s}_{j}", f"{_BLOCK}.{ours}"
    return (
        Key(f"{block}.attn_layer_norm{suffix}", f"{ours}.norm1"),
        *(Key(f"{block}.attention{suffix}.{n}", f"{ours}.token_mixer.qkv", (i, 3)) for i, n in enumerate("qkv")),
        Key(f"{block}.attention{suffix}.o", f"{ours}.token_mixer.proj"),
        Key(f"{block}.attention{suffix}.relative_bias", f"{ours}.token_mixer.bias_table"),
        Key(f"{block}.ffn_layer_norm{suffix}", f"{ours}.norm2"),
        Key(f"{block}.ffn{suffix}.expand_dense", f"{ours}.mlp.fc1"),
        Key(f"{block}.ffn{suffix}.shrink_dense", f"{ours}.mlp.fc2"),
    )


CHECKPOINT_KEYS = {
    "timm": (
        Key("stem.conv1", "stem.conv1.conv"),
        Key("stem.norm1", "stem.conv1.norm"),
        *(Key(f"{_BLOCK}.conv.{timm}", f"{_BLOCK}.mbconv.{ours}") for timm, (_, ours) in _MBCONV.items()),
        *(
            row
            for timm, ours in (("attn_block", "block_attention"), ("attn_grid", "grid_attention"))
            for row in (
                Key(f"{_BLOCK}.{timm}", f"{_BLOCK}.{ours}"),
                Key(f"{_BLOCK}.{timm}.attn", f"{_BLOCK}.{ours}.token_mixer"),
                Key(
                    f"{_BLOCK}.{timm}.attn.rel_pos.relative_position_bias_table",
                    f"{_BLOCK}.{ours}.token_mixer.bias_table",
                ),
            )
        ),
        Key("head.norm", "norm"),
        Key("head.pre_logits", "pre_logits"),
        Key("head.fc", "head"),
    ),
    "tensorflow": (
        Key("stem.conv_0", "stem.conv1.conv"),
        Key("stem.norm_0", "stem.conv1.norm"),
        Key("stem.conv_1", "stem.conv2"),
        *(Key(f"block_{{s}}_{{j}}.mbconv.{tf}", f"{_BLOCK}.mbconv.{ours}") for tf, ours in _MBCONV.values()),
        *_tensorflow_attention("", "block_attention"),
        *_tensorflow_attention("_1", "grid_attention"),
        Key("final_layer_norm", "norm"),
        Key("cls_head.inner_dense", "pre_logits.fc"),
        Key("cls_head.logit_dense", "head"),
    ),
    "torchvision": (Key("blocks.{s}.layers.{j}.layers.MBconv", "torchvision", convert=_refuse_torchvision),),
}
