"""ReMViTv2: pooled multi-scale attention with logits that are averaged over depth.

Paper: Diko et al., "ReViT: Enhancing Vision Transformers Feature Diversity with Attention Residual Connections", 2024,
arXiv:2402.11301; on Li et al., "MViTv2", CVPR 2022, arXiv:2112.01526.
Compatible with: ADiko1997/ReViT @ 2188c96, config-ReMViTv2-T.yaml (MIT text; README: research use).
The authors' code takes square images only; here rectangular ones are taken too, every axis by the same rule.

Memory: (b, heads, queries, keys) logits are carried on; at 224 pixels 0.61 M numbers an image after the first block.

Shapes: b images, c channels, h and w pixels or tokens a side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitrail.core.errors import ConfigError
from vitrail.core.types import FeatureInfo, ImageSize
from vitrail.layers import CarriedLogits, LayerNorm2d, Mlp, PooledResidualAttention, resize_rel_pos
from vitrail.models.base import Backbone, BackboneConfig, drop_path_rates, make_classifier
from vitrail.models.checkpoint import Key
from vitrail.models.family import Family


@dataclass(frozen=True, kw_only=True)
class ReMViTConfig(BackboneConfig):
    """
    Attributes:
        embed_dims, depths: width and number of blocks of each stage; its first block changes width and halves the map.
        head_dim: width of an attention head, the same everywhere.
        patch_kernel, patch_stride: kernel and stride of the patch embedding; it is padded by half its kernel.
        stride_kv: stride of the pooling of keys and values in the first stage; each next stage has half of it, down
            to 1.
        alpha: weight of a block's own logits.
        learnable_alpha: train alpha, one number for the whole model, from that value on.
    """

    embed_dims: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (1, 2, 5, 2)
    head_dim: int = 96
    patch_kernel: int = 7
    patch_stride: int = 4
    stride_kv: int = 4
    mlp_ratio: float = 4.0
    alpha: float = 0.5
    learnable_alpha: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.embed_dims) != len(self.depths):
            raise ConfigError("embed_dims and depths need one entry a stage")
        if any(dim % self.head_dim for dim in self.embed_dims):
            raise ConfigError(f"embed_dims={self.embed_dims} are not all multiples of head_dim={self.head_dim}")
        if self.stride_kv & (self.stride_kv - 1):
            raise ConfigError(f"stride_kv={self.stride_kv} is not a power of 2, so stages cannot halve it")


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """The dimensions of one block.

    Attributes:
        dim, out_dim: width of its input and its output.
        grid: (rows, columns) of its input.
        stride_q, stride_kv: strides of the pooling of queries, and of keys and values.
    """

    dim: int
    out_dim: int
    grid: tuple[int, int]
    stride_q: int
    stride_kv: int


def block_shapes(config: ReMViTConfig) -> list[BlockShape]:
    """Every block's widths, map and strides, from first to last."""
    grid = (config.image_size[0] // config.patch_stride, config.image_size[1] // config.patch_stride)
    shapes, dim, stride_kv = [], config.embed_dims[0], config.stride_kv
    for stage, (out_dim, depth) in enumerate(zip(config.embed_dims, config.depths, strict=True)):
        for index in range(depth):
            stride_q = 2 if stage and index == 0 else 1
            stride_kv = max(stride_kv // stride_q, 1)
            shapes.append(BlockShape(dim=dim, out_dim=out_dim, grid=grid, stride_q=stride_q, stride_kv=stride_kv))
            dim, grid = out_dim, (grid[0] // stride_q, grid[1] // stride_q)
    return shapes


class Block(nn.Module):
    """Attention over pooled tokens, its logits mixed with those of the block before, then an MLP.

    Where the width changes, the skip path is a projection of the *normed* input; where the map shrinks, its maximum.
    """

    def __init__(self, config: ReMViTConfig, shape: BlockShape, drop_path: float) -> None:
        super().__init__()
        dim, out_dim = shape.dim, shape.out_dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.token_mixer = PooledResidualAttention(
            dim, out_dim, out_dim // config.head_dim, shape.grid, shape.stride_q, shape.stride_kv
        )
        self.proj = nn.Linear(dim, out_dim) if dim != out_dim else None
        stride = shape.stride_q
        self.pool_skip = nn.MaxPool2d(stride + 1, stride, (stride + 1) // 2) if stride > 1 else None
        self.norm2 = nn.LayerNorm(out_dim, eps=1e-6)
        self.mlp = Mlp(out_dim, int(out_dim * config.mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(
        self, x: Float[Tensor, "b h w c"], carried: CarriedLogits | None, alpha: Tensor | float, carry: bool
    ) -> tuple[Float[Tensor, "b h2 w2 d"], CarriedLogits | None]:
        normed = self.norm1(x)
        mixed, carried = self.token_mixer(normed, carried, alpha, carry)
        x = x if self.proj is None else self.proj(normed)
        if self.pool_skip is not None:
            x = self.pool_skip(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.norm2(x))), carried


class ReMViT(Backbone):
    """Four levels, at strides 4, 8, 16 and 32; relative-position tables belong to the image size it is built for."""

    config: ReMViTConfig

    def __init__(self, config: ReMViTConfig) -> None:
        super().__init__(config)
        strides = [config.patch_stride * 2**i for i in range(len(config.depths))]
        self.size_divisor = max(strides[-1], config.patch_stride * config.stride_kv)
        super().check_image_size(*config.image_size)
        self.alpha = nn.Parameter(torch.full((1,), config.alpha)) if config.learnable_alpha else config.alpha
        kernel = config.patch_kernel
        self.stem = nn.Sequential()
        self.stem.add_module(
            "proj", nn.Conv2d(config.in_chans, config.embed_dims[0], kernel, config.patch_stride, kernel // 2)
        )
        rates = drop_path_rates(config.drop_path_rate, sum(config.depths))
        shapes = block_shapes(config)
        self.blocks = nn.ModuleList(Block(config, shape, rate) for shape, rate in zip(shapes, rates, strict=True))
        self.num_features = config.embed_dims[-1]
        self.norm = LayerNorm2d(self.num_features, eps=1e-6)
        self.head = make_classifier(self.num_features, config.num_classes)
        last = [sum(config.depths[: i + 1]) - 1 for i in range(len(config.depths))]
        self.feature_info = tuple(
            FeatureInfo(name=f"blocks.{block}", channels=dim, stride=stride)
            for block, dim, stride in zip(last, config.embed_dims, strides, strict=True)
        )
        self.init_weights()

    def check_image_size(self, height: int, width: int) -> None:
        self.require_built_size(height, width, "relative-position tables")

    def forward_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        x = self.stem(x).permute(0, 2, 3, 1)
        levels = {info.name for info in self.feature_info}
        carried = None
        for index, block in enumerate(self.blocks):
            x, carried = self.run_block(block, x, carried, self.alpha, index + 1 < len(self.blocks))
            if f"blocks.{index}" in levels:
                yield x.permute(0, 3, 1, 2)

    def final_norm(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.norm(x)

    def pool(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return x.mean((2, 3))

    def layer_groups(self) -> list[tuple[str, ...]]:
        return [("stem.",), *((f"blocks.{i}.",) for i in range(len(self.blocks)))]

    def adapt_tensor(
        self, name: str, tensor: Tensor, shape: tuple[int, ...], image_size: ImageSize | None = None
    ) -> Tensor | None:
        if not name.endswith(("rel_pos_h", "rel_pos_w")) or tensor.ndim != 2 or tensor.shape[1] != shape[1]:
            return None
        return resize_rel_pos(tensor, shape[0])


VARIANTS = {
    "remvit_t": ReMViTConfig(),
    "remvit_nano_stride2": ReMViTConfig(
        embed_dims=(32, 64, 128), depths=(1, 2, 2), head_dim=32, patch_kernel=3, patch_stride=2, image_size=(48, 48)
    ),
}

CHECKPOINT_KEYS = {
    "adiko": (
        Key("patch_embed", "stem"),
        Key("blocks.{i}.attn", "blocks.{i}.token_mixer"),
        Key("head.projection", "head"),
    ),
}

FAMILY = Family(
    name="remvit",
    backbone=ReMViT,
    variants=VARIANTS,
    weights_elsewhere="the authors link theirs on Google Drive (https://github.com/ADiko1997/ReViT)",
    checkpoint_keys=CHECKPOINT_KEYS,
    title="ReViT: Enhancing Vision Transformers Feature Diversity with Attention Residual Connections",
    authors="Diko et al.",
    venue="2024",
    arxiv="2402.11301",
    code="ADiko1997/ReViT @ 2188c96 (MIT text; README: research use)",
    ours={"remvit_nano_stride2": "a stem of stride 2 for 48-pixel images, small enough to train on a CPU"},
)
