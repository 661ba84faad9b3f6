"""Vision Transformer: an image is a sentence of patches.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", ICLR 2021,
arXiv:2010.11929. DeiT, the same network with a distillation token: Touvron et al., "Training data-efficient image
transformers & distillation through attention", ICML 2021, arXiv:2012.12877.
Compatible with: timm 1.0.31 `vision_transformer`, `vision_transformer_hybrid`, `deit` (Apache-2.0),
facebookresearch/deit `.pth` files of the first version (Apache-2.0), which have timm's names, and
google-research/vision_transformer @ c6de1e5 `.npz` files (Apache-2.0). The numbers follow timm; the authors' JAX code
differs in the GELU (``act="gelu_tanh"``) and, in hybrids, in the fifth digit of the standardised convolutions.

Shapes: b images, c channels, h and w pixels; n tokens (class and distillation token first), d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitrail.core.errors import CheckpointError, ConfigError
from vitrail.core.types import HALF, FeatureInfo, ImageSize, Preprocessing
from vitrail.layers import (
    Attention,
    AxialAttention,
    HybridEmbed,
    LearnedPosEmbed1d,
    LearnedPosEmbed2d,
    Mlp,
    PatchEmbed,
    RelativeAttention,
    ResizeRule,
    SinCosPosEmbed2d,
    TanhGELU,
)
from vitrail.models.base import BackboneConfig, drop_path_rates, grid_of, make_classifier
from vitrail.models.class_tokens import ClassTokenBackbone, make_token
from vitrail.models.family import Family, Publication
from vitrail.models.pretrained import PretrainedWeights
from vitrail.models.vit_checkpoints import CHECKPOINT_KEYS

PosEmbed = Literal["learned_1d", "learned_2d", "sincos_2d", "relative", "none"]
ACTIVATIONS = {"gelu": nn.GELU, "gelu_tanh": TanhGELU}


@dataclass(frozen=True, kw_only=True)
class ViTConfig(BackboneConfig):
    """
    Attributes:
        patch_size: pixels a side, in a hybrid those of the ResNet's feature map.
        class_token: put a learned token before the patches.
        distillation_token: put a second one behind it, with a classifier of its own that learns from a teacher (DeiT);
            the logits are the mean of both.
        global_pool: input of the classifier: the class token; the mean of the normed patches ("avg", the JAX code's
            `gap`); or the norm of the mean ("avg_fc_norm", timm's usual GAP).
        pos_embed: kind of position embedding; "relative" works inside every attention (appendix D.4).
        pos_embed_resize: rule for the 1-D table when a checkpoint has another image size.
        axial: every block attends along the rows, then along the columns (Axial-ViT, appendix D.6).
        act: exact GELU, or the authors' tanh approximation.
        pre_logits: a tanh layer before the classifier, as in pre-training and in the first ImageNet-21k weights.
        resnet_depths: blocks in each stage of the ResNet before the transformer; () is its root alone, None no ResNet.
    """

    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    class_token: bool = True
    distillation_token: bool = False
    global_pool: Literal["token", "avg", "avg_fc_norm"] = "token"
    pos_embed: PosEmbed = "learned_1d"
    pos_embed_resize: ResizeRule = "bicubic"
    axial: bool = False
    act: Literal["gelu", "gelu_tanh"] = "gelu"
    pre_logits: bool = False
    resnet_depths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.global_pool == "token" and not self.class_token:
            raise ConfigError("global_pool='token' needs class_token=True; use global_pool='avg'")
        if self.distillation_token and (self.global_pool != "token" or self.pre_logits):
            raise ConfigError(
                "distillation_token=True needs global_pool='token' and pre_logits=False: either token has a linear "
                "classifier of its own"
            )
        if self.axial and (self.class_token or self.pos_embed == "relative"):
            raise ConfigError("axial=True needs a map: use class_token=False and pos_embed other than 'relative'")

    @property
    def stride(self) -> int:
        """Pixels of the image for one token, on each axis."""
        stages = self.resnet_depths
        return self.patch_size if stages is None else self.patch_size * 4 * 2 ** max(len(stages) - 1, 0)

    @property
    def grid(self) -> ImageSize:
        """(rows, columns) of patches."""
        return grid_of(self.image_size, self.stride)


class Block(nn.Module):
    """Pre-norm transformer block: attention mixes tokens, then an MLP transforms each."""

    def __init__(self, config: ViTConfig, token_mixer: nn.Module, drop_path: float) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.token_mixer = token_mixer
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), ACTIVATIONS[config.act])
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        x = x + self.drop_path(self.token_mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class AxialBlock(nn.Module):
    """Two blocks in one: along the rows, then along the columns (appendix D.6)."""

    def __init__(self, config: ViTConfig, drop_path: float) -> None:
        super().__init__()
        self.grid = config.grid
        dim, heads, bias = config.embed_dim, config.num_heads, config.qkv_bias
        self.row = Block(config, AxialAttention(dim, heads, "row", bias), drop_path)
        self.column = Block(config, AxialAttention(dim, heads, "column", bias), drop_path)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.column(self.row(x.unflatten(1, self.grid))).flatten(1, 2)


def make_block(config: ViTConfig, drop_path: float) -> nn.Module:
    """The block of a configuration."""
    if config.axial:
        return AxialBlock(config, drop_path)
    if config.pos_embed == "relative":
        num_tokens = config.grid[0] * config.grid[1] + config.class_token + config.distillation_token
        mixer: nn.Module = RelativeAttention(config.embed_dim, config.num_heads, num_tokens, config.qkv_bias)
    else:
        mixer = Attention(config.embed_dim, config.num_heads, config.qkv_bias)
    return Block(config, mixer, drop_path)


DEIT_PREPROCESSING = Preprocessing(crop_fraction=0.9)
"""What all public weights with a distillation token expect."""


class ViT(ClassTokenBackbone):
    """Levels are the outputs of the blocks, all at the stride of a patch."""

    config: ViTConfig
    preprocessing = Preprocessing(mean=HALF, std=HALF, crop_fraction=0.9)
    head_prefixes = (*ClassTokenBackbone.head_prefixes, "pre_logits.")

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        dim = config.embed_dim
        if config.distillation_token:
            self.preprocessing = DEIT_PREPROCESSING
        self.size_divisor = config.stride
        super().check_image_size(*config.image_size)
        self.num_prefix_tokens = config.class_token + config.distillation_token
        self.takes_subsets = not config.axial and config.pos_embed != "relative" and config.resnet_depths is None
        self.stem = PatchEmbed(config.in_chans, dim, config.patch_size)
        if config.resnet_depths is not None:
            self.stem = HybridEmbed(config.in_chans, dim, config.patch_size, config.resnet_depths)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim)) if config.class_token else None
        self.distillation_token = make_token(dim) if config.distillation_token else None
        tables = {"learned_1d": LearnedPosEmbed1d, "learned_2d": LearnedPosEmbed2d, "sincos_2d": SinCosPosEmbed2d}
        table = tables.get(config.pos_embed)
        self.pos_embed = table(config.grid, dim, self.num_prefix_tokens) if table else nn.Identity()
        rates = drop_path_rates(config.drop_path_rate, config.depth)
        self.blocks = nn.ModuleList(make_block(config, rate) for rate in rates)
        norm_after_pool = config.global_pool == "avg_fc_norm"
        self.norm = nn.Identity() if norm_after_pool else nn.LayerNorm(dim, eps=1e-6)
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6) if norm_after_pool else nn.Identity()
        self.pre_logits = nn.Sequential(nn.Linear(dim, dim), nn.Tanh()) if config.pre_logits else nn.Identity()
        self.head = make_classifier(dim, config.num_classes)
        self.head_dist = make_classifier(dim, config.num_classes) if config.distillation_token else None
        self.num_features = dim
        self.feature_info = tuple(
            FeatureInfo(name=f"blocks.{i}", channels=dim, stride=config.stride) for i in range(config.depth)
        )
        self.init_weights()

    def check_image_size(self, height: int, width: int) -> None:
        self.require_built_size(height, width, "position table")

    def add_positions(self, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b m d"]:
        return self.pos_embed(self.prepend_tokens(patches))

    def forward_blocks(self, x: Float[Tensor, "b m d"]) -> Iterator[Tensor]:
        for block in self.blocks:
            x = self.run_block(block, x)
            yield x

    def final_norm(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.norm(x)

    def to_map(self, x: Float[Tensor, "b n d"], image_size: ImageSize) -> Float[Tensor, "b d h w"]:
        return x[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, self.config.grid)

    def pool(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        x = self.pool_tokens(x) if self.config.global_pool == "token" else x[:, self.num_prefix_tokens :].mean(1)
        return self.pre_logits(self.fc_norm(x))

    def no_weight_decay(self) -> set[str]:
        names = ("class_token", "distillation_token", "pos_embed.", "offset_keys")
        return {name for name, _ in self.named_parameters() if name.startswith(names) or name.endswith(names)}

    def layer_groups(self) -> list[tuple[str, ...]]:
        stem, *blocks = super().layer_groups()
        return [(*stem, *(n for n in self.no_weight_decay() if not n.startswith("blocks."))), *blocks]

    def adapt_tensor(
        self, name: str, tensor: Tensor, shape: tuple[int, ...], image_size: ImageSize | None = None
    ) -> Tensor | None:
        positions = name.startswith("pos_embed.") or name.endswith(".offset_keys")
        if not positions or tensor.ndim != len(shape) or tensor.shape[-1] != shape[-1]:
            return None
        if isinstance(self.pos_embed, LearnedPosEmbed1d):
            if tensor.shape[0] != 1:
                return None
            old = None if image_size is None else grid_of(image_size, self.config.stride)
            return self.pos_embed.resize(tensor, self.config.pos_embed_resize, old)
        if isinstance(self.pos_embed, LearnedPosEmbed2d) and tensor.shape == shape:
            return tensor
        kind = self.config.pos_embed
        raise CheckpointError(
            f"the table has {tensor.shape[0]} rows and the model's has {shape[0]}, and tables of pos_embed='{kind}' "
            "cannot be resized; build the model with the image_size of the weights"
        )

    def fields_in(self, names: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        token = "class_token" in names
        found: dict[str, Any] = {
            "class_token": token,
            "distillation_token": "distillation_token" in names,
            "pre_logits": "pre_logits.0.weight" in names,
            "qkv_bias": any(name.endswith(".qkv.bias") for name in names),
        }
        tables = {"pos_embed.table": "learned_1d", "pos_embed.rows": "learned_2d"}
        tables["blocks.0.token_mixer.offset_keys"] = "relative"
        if kind := next((kind for name, kind in tables.items() if name in names), None):
            found["pos_embed"] = kind
        if "fc_norm.weight" in names:
            found["global_pool"] = "avg_fc_norm"
        elif self.config.global_pool == "avg_fc_norm" or token != self.config.class_token:
            found["global_pool"] = "token" if token else "avg"
        return {name: value for name, value in found.items() if value != getattr(self.config, name)}


TINY = ViTConfig(embed_dim=192, depth=12, num_heads=3)
SMALL = ViTConfig(embed_dim=384, depth=12, num_heads=6)
BASE = ViTConfig(embed_dim=768, depth=12, num_heads=12)
LARGE = ViTConfig(embed_dim=1024, depth=24, num_heads=16)
HUGE = ViTConfig(embed_dim=1280, depth=32, num_heads=16)
NANO = ViTConfig(embed_dim=128, depth=6, num_heads=4, patch_size=4, image_size=(32, 32))

VARIANTS = {
    "vit_tiny_patch16": TINY,
    "vit_small_patch8": replace(SMALL, patch_size=8),
    "vit_small_patch16": SMALL,
    "vit_small_patch16_gap": replace(SMALL, class_token=False, global_pool="avg"),
    "vit_small_patch32": replace(SMALL, patch_size=32),
    "vit_base_patch8": replace(BASE, patch_size=8),
    "vit_base_patch16": BASE,
    "vit_base_patch32": replace(BASE, patch_size=32),
    "vit_large_patch14": replace(LARGE, patch_size=14),
    "vit_large_patch16": LARGE,
    "vit_large_patch32": replace(LARGE, patch_size=32),
    "vit_huge_patch14": replace(HUGE, patch_size=14),
    "vit_tiny_r_s16": replace(TINY, patch_size=8, resnet_depths=()),
    "vit_small_r26_s32": replace(SMALL, patch_size=1, resnet_depths=(2, 2, 2, 2)),
    "vit_base_r50_s16": replace(BASE, patch_size=1, resnet_depths=(3, 4, 9)),
    "vit_large_r50_s32": replace(LARGE, patch_size=1, resnet_depths=(3, 4, 6, 3)),
    "deit_tiny_distilled_patch16": replace(TINY, distillation_token=True),
    "deit_small_distilled_patch16": replace(SMALL, distillation_token=True),
    "deit_base_distilled_patch16": replace(BASE, distillation_token=True),
    "vit_nano_patch4": NANO,
}

DEIT = Publication(
    title="Training data-efficient image transformers & distillation through attention",
    authors="Touvron et al.",
    venue="ICML 2021",
    arxiv="2012.12877",
)


def _weights(name: str, side: int, tag: str) -> PretrainedWeights:
    """The rules of timm: 21k weights have 21,843 classes, or no classifier where training used a tanh."""
    preprocessing = Preprocessing(image_size=(side, side), crop_fraction=1.0 if side == 384 else 0.9)
    if tag not in ("dino", "fb_in1k"):
        preprocessing = replace(preprocessing, mean=HALF, std=HALF)
    return PretrainedWeights(
        hub_id=f"timm/{'vit_tiny_r_s16_p8' if name == 'vit_tiny_r_s16' else name}_{side}.{tag}",
        tag=tag,
        image_size=(side, side),
        preprocessing=preprocessing,
        num_classes=1000 if tag.endswith("in1k") else 21843 if tag == "augreg_in21k" else 0,
        top1=_TOP1.get((name, side)),
        source="DeiT's model zoo" if (name, side) in _TOP1 else "",
    )


_TOP1 = {
    ("deit_tiny_distilled_patch16", 224): 74.5,
    ("deit_small_distilled_patch16", 224): 81.2,
    ("deit_base_distilled_patch16", 224): 83.4,
    ("deit_base_distilled_patch16", 384): 85.2,
}

_AUGREG, _ORIG = "augreg_in21k_ft_in1k", "orig_in21k_ft_in1k"
_BASE = ("augreg2_in21k_ft_in1k", _AUGREG)

# The first tag of a size is timm's default. MAE's weights are left out: their licence forbids commercial use.
_TAGS: dict[str, dict[int, tuple[str, ...]]] = {
    "vit_tiny_patch16": {224: (_AUGREG, "augreg_in21k"), 384: (_AUGREG,)},
    "vit_small_patch8": {224: ("dino",)},
    "vit_small_patch16": {224: (_AUGREG, "augreg_in1k", "augreg_in21k", "dino"), 384: (_AUGREG, "augreg_in1k")},
    "vit_small_patch32": {224: (_AUGREG, "augreg_in21k"), 384: (_AUGREG,)},
    "vit_base_patch8": {224: (*_BASE, "augreg_in21k", "dino")},
    "vit_base_patch16": {
        224: (*_BASE, _ORIG, "augreg_in1k", "sam_in1k", "augreg_in21k", "orig_in21k", "dino"),
        384: (_AUGREG, _ORIG, "augreg_in1k"),
    },
    "vit_base_patch32": {
        224: (_AUGREG, "augreg_in1k", "sam_in1k", "augreg_in21k", "orig_in21k"),
        384: (_AUGREG, "augreg_in1k"),
    },
    "vit_large_patch16": {224: (_AUGREG, "augreg_in21k", "orig_in21k"), 384: (_AUGREG,)},
    "vit_large_patch32": {224: ("orig_in21k",), 384: (_ORIG,)},
    "vit_huge_patch14": {224: ("orig_in21k",)},
    "vit_tiny_r_s16": {224: (_AUGREG, "augreg_in21k"), 384: (_AUGREG,)},
    "vit_small_r26_s32": {224: (_AUGREG, "augreg_in21k"), 384: (_AUGREG,)},
    "vit_base_r50_s16": {224: ("orig_in21k",), 384: (_ORIG,)},
    "vit_large_r50_s32": {224: (_AUGREG, "augreg_in21k"), 384: (_AUGREG,)},
    "deit_tiny_distilled_patch16": {224: ("fb_in1k",)},
    "deit_small_distilled_patch16": {224: ("fb_in1k",)},
    "deit_base_distilled_patch16": {224: ("fb_in1k",), 384: ("fb_in1k",)},
}

WEIGHTS = {
    name: tuple(_weights(name, side, tag) for side, tags in sizes.items() for tag in tags)
    for name, sizes in _TAGS.items()
}


FAMILY = Family(
    name="vit",
    backbone=ViT,
    variants=VARIANTS,
    weights=WEIGHTS,
    checkpoint_keys=CHECKPOINT_KEYS,
    layout_notes={
        "jax": "the authors' code has the tanh approximation of GELU (act='gelu_tanh'), timm's the exact one"
    },
    title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
    authors="Dosovitskiy et al.",
    venue="ICLR 2021",
    arxiv="2010.11929",
    code="timm 1.0.31 vision_transformer, deit (Apache-2.0), google-research/vision_transformer @ c6de1e5 (Apache-2.0)",
    publications={name: DEIT for name in VARIANTS if name.startswith("deit_")},
    ours={"vit_nano_patch4": "4-pixel patches for images of 32 to 64 pixels, small enough to train on a CPU"},
)
