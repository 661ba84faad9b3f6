"""MaxViT: local and global attention in every block, both at linear cost, so that even the first stage has them.

Paper: Tu et al., "MaxViT: Multi-Axis Vision Transformer", ECCV 2022, arXiv:2204.01697.
Compatible with: google-research/maxvit @ 70a4707 (Apache-2.0) and timm 1.0.31 `maxvit_*_tf_*` (Apache-2.0).
torchvision's `maxvit_t` is another network (attention scale, GELU, padding and shortcuts differ) and is refused.

The authors trained tiny, small, base and large with drop_path_rate 0.2, 0.3, 0.4, 0.6. Their images of 384 and 512
pixels were squashed to a square; ours are cropped to it.

Shapes: b images, c channels, h and w pixels or tokens a side.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import lcm
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitrail.core.errors import ConfigError, ImageSizeError
from vitrail.core.types import HALF, FeatureInfo, ImageSize, Preprocessing
from vitrail.layers import BlockAttention, ConvNormAct, GridAttention, MBConv, Mlp, resize_bias_table
from vitrail.layers.activation import TanhGELU
from vitrail.layers.conv import Conv2dSame
from vitrail.models.base import Backbone, BackboneConfig, make_classifier
from vitrail.models.family import Family
from vitrail.models.maxvit_checkpoints import CHECKPOINT_KEYS
from vitrail.models.pretrained import PretrainedWeights


@dataclass(frozen=True, kw_only=True)
class MaxViTConfig(BackboneConfig):
    """
    Attributes:
        stem_dim, embed_dims, depths: width of the stem, width and number of blocks of every stage.
        head_dim: width of an attention head, the same everywhere.
        window_size: tokens a side (rows, columns) of a window; None means the last stage's map, image_size / 32, so
            that the number of windows of a stage does not depend on the image size.
        grid_size: tokens a side of the grid; None means window_size.
        attentions: attentions after the convolution of every block, in order; the paper's ablations vary them.
        stem_stride: stride of the first convolution; every stage halves the map again.
        batch_norm_momentum: weight of the newest batch in the running statistics.
    """

    stem_dim: int
    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    head_dim: int = 32
    window_size: int | ImageSize | None = None
    grid_size: int | ImageSize | None = None
    attentions: tuple[Literal["block", "grid"], ...] = ("block", "grid")
    mlp_ratio: float = 4.0
    expand_ratio: float = 4.0
    stem_stride: int = 2
    batch_norm_momentum: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.embed_dims) != len(self.depths):
            raise ConfigError("embed_dims and depths need one entry a stage")
        if any(dim % self.head_dim for dim in self.embed_dims):
            raise ConfigError(f"embed_dims={self.embed_dims} are not all multiples of head_dim={self.head_dim}")
        if any(n < 1 for size in (self.window_size, self.grid_size) for n in _pair(size)):
            raise ConfigError(f"window_size={self.window_size}, grid_size={self.grid_size}: need at least 1")
        if not set(self.attentions) <= {"block", "grid"} or len(set(self.attentions)) < len(self.attentions):
            raise ConfigError(f"attentions={self.attentions} are not 'block' and 'grid' in some order, or one of them")

    @property
    def stride(self) -> int:
        """Pixels for one token of the last stage."""
        return self.stem_stride * 2 ** len(self.depths)

    @property
    def window(self) -> ImageSize:
        """(rows, columns) of a window."""
        if self.window_size is not None:
            return _pair(self.window_size)
        return self.image_size[0] // self.stride, self.image_size[1] // self.stride

    @property
    def grid(self) -> ImageSize:
        """(rows, columns) of the grid."""
        return self.window if self.grid_size is None else _pair(self.grid_size)


def _pair(size: int | ImageSize | None) -> ImageSize:
    return (1, 1) if size is None else (size, size) if isinstance(size, int) else size


class Stem(nn.Module):
    """Two 3x3 convolutions, the first with the stride; no norm or activation follows the second."""

    def __init__(self, config: MaxViTConfig) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(
            config.in_chans,
            config.stem_dim,
            3,
            config.stem_stride,
            act=TanhGELU,
            bias=True,
            eps=1e-3,
            momentum=config.batch_norm_momentum,
            tf_padding=True,
        )
        self.conv2 = Conv2dSame(config.stem_dim, config.stem_dim, 3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return self.conv2(self.conv1(x))


class AttentionBlock(nn.Module):
    """Pre-norm attention over windows or the grid, then an MLP, on maps with the channels last."""

    def __init__(self, token_mixer: nn.Module, dim: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.token_mixer = token_mixer
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act=TanhGELU)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        x = x + self.drop_path(self.token_mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Block(nn.Module):
    """A convolution mixes neighbours, block attention windows, grid attention the whole map."""

    def __init__(self, config: MaxViTConfig, in_dim: int, dim: int, stride: int, drop_path: float) -> None:
        super().__init__()
        self.mbconv = MBConv(
            in_dim,
            dim,
            stride,
            expand_ratio=config.expand_ratio,
            act=TanhGELU,
            momentum=config.batch_norm_momentum,
            drop_path=drop_path,
        )
        mixers = {"block": (BlockAttention, config.window), "grid": (GridAttention, config.grid)}
        self.order = [f"{name}_attention" for name in config.attentions]
        for name, (mixer, size) in mixers.items():
            if name in config.attentions:
                block = AttentionBlock(mixer(dim, size, config.head_dim), dim, config.mlp_ratio, drop_path)
                self.add_module(f"{name}_attention", block)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        x = self.mbconv(x).permute(0, 2, 3, 1)
        for name in self.order:
            x = self.get_submodule(name)(x)
        return x.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Half as many tokens a side, by the stride of the first block."""

    def __init__(self, config: MaxViTConfig, in_dim: int, dim: int, rates: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(config, dim if j else in_dim, dim, 1 if j else 2, rate) for j, rate in enumerate(rates)
        )


class MaxViT(Backbone):
    """Five levels: the stem at stride 2, the stages at 4, 8, 16 and 32.

    A model takes every image whose last map is made of whole windows and grids: at 224 these are 7x7, so that 224x448
    is legal and 256x256 is not; built with ``image_size=256`` they are 8x8.
    """

    config: MaxViTConfig
    preprocessing = Preprocessing(crop_fraction=0.95)

    def __init__(self, config: MaxViTConfig) -> None:
        super().__init__(config)
        self.check_image_size(*config.image_size)
        self.size_divisor = lcm(*self.size_divisors((0, 0)))
        in_dims = (config.stem_dim, *config.embed_dims)
        total = sum(config.depths)
        # As the authors' code: the last block stays below the maximum.
        rates = iter([config.drop_path_rate * i / total for i in range(total)])
        self.stem = Stem(config)
        self.stages = nn.ModuleList(
            Stage(config, in_dims[i], dim, [next(rates) for _ in range(depth)])
            for i, (dim, depth) in enumerate(zip(config.embed_dims, config.depths, strict=True))
        )
        self.num_features = config.embed_dims[-1]
        self.norm = nn.LayerNorm(self.num_features, eps=1e-5)
        self.pre_logits = nn.Sequential(OrderedDict(fc=nn.Linear(self.num_features, self.num_features), act=nn.Tanh()))
        self.head = make_classifier(self.num_features, config.num_classes)
        self.feature_info = (
            FeatureInfo(name="stem", channels=config.stem_dim, stride=config.stem_stride),
            *(
                FeatureInfo(name=f"stages.{i}", channels=dim, stride=config.stem_stride * 2 ** (i + 1))
                for i, dim in enumerate(config.embed_dims)
            ),
        )
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """All kernels and bias tables normal with deviation 0.02, all biases 0."""
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def size_divisors(self, size: ImageSize) -> ImageSize:
        """Divisors of legal heights and widths, which give whole windows and grids on the last map.

        At the size that the model was built for, the windows follow the image, so that the stride is enough.
        """
        config = self.config
        if size == config.image_size and config.window_size is None and config.grid_size is None:
            return config.stride, config.stride
        rows, columns = (lcm(window, grid) for window, grid in zip(config.window, config.grid, strict=True))
        return max(rows, 1) * config.stride, max(columns, 1) * config.stride

    def check_image_size(self, height: int, width: int) -> None:
        size = (height, width)
        divisors = self.size_divisors(size)
        if all(n > 0 and n % divisor == 0 for n, divisor in zip(size, divisors, strict=True)):
            return
        nearest = [
            tuple(max(d, (n + up * (d - 1)) // d * d) for n, d in zip(size, divisors, strict=True)) for up in (0, 1)
        ]
        stride, rebuilt = self.config.stride, f"image_size=({height}, {width})"
        fits = height % stride == 0 and width % stride == 0 and 0 not in size and size != self.config.image_size
        raise ImageSizeError(
            f"image size {height}x{width} is not allowed: this MaxViT needs multiples of {divisors[0]} (height) and "
            f"{divisors[1]} (width); nearest legal sizes: "
            + " or ".join(f"{h}x{w}" for h, w in dict.fromkeys(nearest))
            + (f"; or build the model with {rebuilt}" if fits and self.config.window_size is None else "")
        )

    def forward_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        x = self.stem(x)
        yield x
        for stage in self.stages:
            assert isinstance(stage, Stage)
            for block in stage.blocks:
                x = self.run_block(block, x)
            yield x

    def pool(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return self.pre_logits(self.norm(x.mean((2, 3))))

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith("bias_table")}

    def layer_groups(self) -> list[tuple[str, ...]]:
        return [(f"{info.name}.",) for info in self.feature_info]

    def adapt_tensor(
        self, name: str, tensor: Tensor, shape: tuple[int, ...], image_size: ImageSize | None = None
    ) -> Tensor | None:
        if not name.endswith("bias_table") or tensor.ndim != 3 or tensor.shape[0] != shape[0]:
            return None
        return resize_bias_table(tensor, ((shape[1] + 1) // 2, (shape[2] + 1) // 2))


VARIANTS = {
    "maxvit_tiny": MaxViTConfig(stem_dim=64, embed_dims=(64, 128, 256, 512), depths=(2, 2, 5, 2)),
    "maxvit_small": MaxViTConfig(stem_dim=64, embed_dims=(96, 192, 384, 768), depths=(2, 2, 5, 2)),
    "maxvit_base": MaxViTConfig(stem_dim=64, embed_dims=(96, 192, 384, 768), depths=(2, 6, 14, 2)),
    "maxvit_large": MaxViTConfig(stem_dim=128, embed_dims=(128, 256, 512, 1024), depths=(2, 6, 14, 2)),
    "maxvit_xlarge": MaxViTConfig(stem_dim=192, embed_dims=(192, 384, 768, 1536), depths=(2, 6, 14, 2)),
    "maxvit_nano": MaxViTConfig(
        stem_dim=16,
        embed_dims=(32, 64, 128),
        depths=(1, 1, 2),
        image_size=(48, 48),
        batch_norm_momentum=0.1,
    ),
}


def _weights(name: str, side: int, tag: str, top1: float | None) -> PretrainedWeights:
    preprocessing = Preprocessing(image_size=(side, side), crop_fraction=0.95 if side == 224 else 1.0)
    if (side, tag) != (224, "in1k"):
        preprocessing = replace(preprocessing, mean=HALF, std=HALF)
    return PretrainedWeights(
        hub_id=f"timm/{name}_tf_{side}.{tag}",
        tag=tag,
        image_size=(side, side),
        preprocessing=preprocessing,
        num_classes=21843 if tag == "in21k" else 1000,
        top1=top1,
        source="" if top1 is None else "the paper, tables 2 and 3",
    )


_TOP1: dict[str, dict[int, dict[str, float | None]]] = {
    "maxvit_tiny": {224: {"in1k": 83.62}, 384: {"in1k": 85.24}, 512: {"in1k": 85.72}},
    "maxvit_small": {224: {"in1k": 84.45}, 384: {"in1k": 85.74}, 512: {"in1k": 86.19}},
    "maxvit_base": {
        224: {"in1k": 84.95, "in21k": None},
        384: {"in1k": 86.34, "in21k_ft_in1k": 88.24},
        512: {"in1k": 86.66, "in21k_ft_in1k": 88.38},
    },
    "maxvit_large": {
        224: {"in1k": 85.17, "in21k": None},
        384: {"in1k": 86.40, "in21k_ft_in1k": 88.32},
        512: {"in1k": 86.70, "in21k_ft_in1k": 88.46},
    },
    "maxvit_xlarge": {224: {"in21k": None}, 384: {"in21k_ft_in1k": 88.51}, 512: {"in21k_ft_in1k": 88.70}},
}
"""Variant -> image side -> tag -> top-1."""

WEIGHTS = {
    name: tuple(_weights(name, side, tag, top1) for side, tags in sizes.items() for tag, top1 in tags.items())
    for name, sizes in _TOP1.items()
}

FAMILY = Family(
    name="maxvit",
    backbone=MaxViT,
    variants=VARIANTS,
    weights=WEIGHTS,
    checkpoint_keys=CHECKPOINT_KEYS,
    title="MaxViT: Multi-Axis Vision Transformer",
    authors="Tu et al.",
    venue="ECCV 2022",
    arxiv="2204.01697",
    code="google-research/maxvit @ 70a4707 (Apache-2.0); timm 1.0.31 maxvit_*_tf_* (Apache-2.0)",
    ours={"maxvit_nano": "narrow, with three stages, for images of 32 to 64 pixels on a CPU"},
)
