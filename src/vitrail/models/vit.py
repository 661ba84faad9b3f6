"""Vision Transformer: an image is a sentence of patches.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", ICLR 2021,
arXiv:2010.11929.
Compatible with: timm 1.0.31 `vision_transformer` (Apache-2.0).

Shapes: b images, c channels, h and w pixels; n tokens (class token first), d width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitrail.core.errors import ConfigError, ImageSizeError
from vitrail.core.types import HALF, FeatureInfo, ImageSize, Preprocessing
from vitrail.layers import Attention, Mlp, PatchEmbed, resize_pos_embed
from vitrail.models.base import Backbone, BackboneConfig, Family, drop_path_rates, make_classifier
from vitrail.models.checkpoint import Key


@dataclass(frozen=True, kw_only=True)
class ViTConfig(BackboneConfig):
    """
    Attributes:
        patch_size: pixels a side.
        class_token: put a learned token before the patches.
        global_pool: what the classifier reads: the class token, or the mean of all (normed) tokens.
    """

    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    class_token: bool = True
    global_pool: Literal["token", "avg"] = "token"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.global_pool == "token" and not self.class_token:
            raise ConfigError("global_pool='token' needs class_token=True; use global_pool='avg'")
        if self.embed_dim % self.num_heads:
            raise ConfigError(f"embed_dim={self.embed_dim} is not a multiple of num_heads={self.num_heads}")


class Block(nn.Module):
    """Pre-norm transformer block: tokens exchange information, then each thinks for itself."""

    def __init__(self, config: ViTConfig, drop_path: float) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.token_mixer = Attention(dim, config.num_heads, config.qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        x = x + self.drop_path(self.token_mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ViT(Backbone):
    """Levels are the outputs of the blocks, all at the stride of a patch."""

    config: ViTConfig
    preprocessing = Preprocessing(mean=HALF, std=HALF, crop_fraction=0.9)

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        dim = config.embed_dim
        self.size_divisor = config.patch_size
        self.check_grid(*config.image_size)
        self.grid: ImageSize = (config.image_size[0] // config.patch_size, config.image_size[1] // config.patch_size)
        self.num_prefix_tokens = int(config.class_token)
        self.stem = PatchEmbed(config.in_chans, dim, config.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim)) if config.class_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1] + self.num_prefix_tokens, dim))
        rates = drop_path_rates(config.drop_path_rate, config.depth)
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = make_classifier(dim, config.num_classes)
        self.num_features = dim
        self.feature_info = tuple(
            FeatureInfo(name=f"blocks.{i}", channels=dim, stride=config.patch_size) for i in range(config.depth)
        )
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def check_grid(self, height: int, width: int) -> None:
        super().check_image_size(height, width)

    def check_image_size(self, height: int, width: int) -> None:
        if (height, width) != self.config.image_size:
            built = "x".join(map(str, self.config.image_size))
            raise ImageSizeError(
                f"image size {height}x{width} is not allowed: this ViT's position table is for {built}; resize the "
                f"images or build it with image_size=({height}, {width})"
            )

    def forward_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        x = self.stem(x)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.pos_embed
        for block in self.blocks:
            x = self.run_block(block, x)
            yield x

    def final_norm(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.norm(x)

    def to_map(self, x: Float[Tensor, "b n d"], image_size: ImageSize) -> Float[Tensor, "b d h w"]:
        return x[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, self.grid)

    def pool(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        return x[:, 0] if self.config.global_pool == "token" else x.mean(1)

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "class_token"} if self.config.class_token else {"pos_embed"}

    def layer_groups(self) -> list[tuple[str, ...]]:
        stem, *blocks = super().layer_groups()
        return [(*stem, *self.no_weight_decay()), *blocks]

    def adapt_tensor(self, name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor | None:
        if name != "pos_embed" or tensor.ndim != 3 or tensor.shape[2] != shape[2]:
            return None
        return resize_pos_embed(tensor, self.grid, self.num_prefix_tokens)


TINY = ViTConfig(embed_dim=192, depth=12, num_heads=3)
SMALL = ViTConfig(embed_dim=384, depth=12, num_heads=6)
NANO = ViTConfig(embed_dim=128, depth=6, num_heads=4, patch_size=4, image_size=(32, 32))

VARIANTS = {
    "vit_tiny_patch16": TINY,
    "vit_small_patch16": SMALL,
    "vit_small_patch16_gap": replace(SMALL, class_token=False, global_pool="avg"),
    "vit_base_patch16": ViTConfig(embed_dim=768, depth=12, num_heads=12),
    "vit_nano_patch4": NANO,
}

CHECKPOINT_KEYS = {
    "timm": (
        Key("cls_token", "class_token"),
        Key("patch_embed.proj", "stem.proj"),
        Key("blocks.{i}.attn", "blocks.{i}.token_mixer"),
    ),
}

FAMILY = Family(
    name="vit",
    backbone=ViT,
    variants=VARIANTS,
    checkpoint_keys=CHECKPOINT_KEYS,
    title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
    authors="Dosovitskiy et al.",
    venue="ICLR 2021",
    arxiv="2010.11929",
    code="timm 1.0.31 vision_transformer (Apache-2.0)",
    ours={"vit_nano_patch4": "4-pixel patches for images of 32 to 64 pixels, small enough to train on a CPU"},
)
