"""ReViT: attention that remembers what earlier layers attended to, so that deep features do not collapse.

Paper: Diko et al., "ReViT: Enhancing Vision Transformers Feature Diversity with Attention Residual Connections", 2024,
arXiv:2402.11301.
Compatible with: ADiko1997/ReViT @ 2188c96 (MIT text; its README says research use). The authors' forward applies a
softmax in evaluation mode; here the model returns logits always.

The distillation token is DeiT's (Touvron et al., ICML 2021, arXiv:2012.12877). Vitrail puts it into ReViT as into ViT;
no published ReViT has one. Its attention logits are mixed from block to block as those of every token.

Memory: (b, heads, n, n) logits are carried from block to block, see :mod:`vitrail.layers.residual_attention`.

Shapes: b images, c channels, h and w pixels; n tokens (class and distillation token first), d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitrail.core.errors import ConfigError
from vitrail.core.types import FeatureInfo, ImageSize
from vitrail.layers import Mlp, PatchEmbed, ResidualAttention, resize_pos_embed
from vitrail.models.base import BackboneConfig, drop_path_rates, grid_of, make_classifier
from vitrail.models.checkpoint import Key
from vitrail.models.class_tokens import ClassTokenBackbone, make_token
from vitrail.models.family import Family


@dataclass(frozen=True, kw_only=True)
class ReViTConfig(BackboneConfig):
    """
    Attributes:
        patch_size: pixels a side.
        class_token: put a learned token before the patches and classify by it; else by the mean of all tokens.
        distillation_token: put a second one behind it, with a classifier of its own that learns from a teacher (DeiT);
            the logits are the mean of both.
        alpha: weight of a block's own logits (1 would be a plain ViT).
        learnable_alpha: train alpha, one number for the whole model and unconstrained, from that value on.
    """

    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    class_token: bool = False
    distillation_token: bool = False
    alpha: float = 0.5
    learnable_alpha: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embed_dim % self.num_heads:
            raise ConfigError(f"embed_dim={self.embed_dim} is not a multiple of num_heads={self.num_heads}")
        if self.distillation_token and not self.class_token:
            raise ConfigError(
                "distillation_token=True needs class_token=True: either token has a classifier of its own"
            )


class Block(nn.Module):
    """Pre-norm transformer block whose attention logits are mixed with those of the block before."""

    def __init__(self, config: ReViTConfig, drop_path: float) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.token_mixer = ResidualAttention(dim, config.num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(
        self, x: Float[Tensor, "b n d"], carried: Tensor | None, alpha: Tensor | float, carry: bool
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b heads n n"] | None]:
        mixed, carried = self.token_mixer(self.norm1(x), carried, alpha, carry)
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.norm2(x))), carried


class ReViT(ClassTokenBackbone):
    """Levels are the outputs of the blocks, all at the stride of a patch."""

    config: ReViTConfig

    def __init__(self, config: ReViTConfig) -> None:
        super().__init__(config)
        dim = config.embed_dim
        self.size_divisor = config.patch_size
        super().check_image_size(*config.image_size)
        self.grid = grid_of(config.image_size, config.patch_size)
        self.num_prefix_tokens = config.class_token + config.distillation_token
        self.alpha = nn.Parameter(torch.full((1,), config.alpha)) if config.learnable_alpha else config.alpha
        self.stem = PatchEmbed(config.in_chans, dim, config.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim)) if config.class_token else None
        self.distillation_token = make_token(dim) if config.distillation_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1] + self.num_prefix_tokens, dim))
        rates = drop_path_rates(config.drop_path_rate, config.depth)
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = make_classifier(dim, config.num_classes)
        self.head_dist = make_classifier(dim, config.num_classes) if config.distillation_token else None
        self.num_features = dim
        self.feature_info = tuple(
            FeatureInfo(name=f"blocks.{i}", channels=dim, stride=config.patch_size) for i in range(config.depth)
        )
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        for table in (self.pos_embed, self.class_token):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)

    def check_image_size(self, height: int, width: int) -> None:
        self.require_built_size(height, width, "position table")

    def add_positions(self, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b m d"]:
        return self.prepend_tokens(patches) + self.pos_embed

    def forward_blocks(self, x: Float[Tensor, "b m d"]) -> Iterator[Tensor]:
        carried = None
        for index, block in enumerate(self.blocks):
            x, carried = self.run_block(block, x, carried, self.alpha, index + 1 < len(self.blocks))
            yield x

    def final_norm(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.norm(x)

    def to_map(self, x: Float[Tensor, "b n d"], image_size: ImageSize) -> Float[Tensor, "b d h w"]:
        return x[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, self.grid)

    def pool(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        return x.mean(1) if self.class_token is None else self.pool_tokens(x)

    def layer_groups(self) -> list[tuple[str, ...]]:
        first, *rest = super().layer_groups()
        tokens = {"class_token": self.class_token, "distillation_token": self.distillation_token}
        return [(*first, *(name for name, token in tokens.items() if token is not None), "pos_embed"), *rest]

    def adapt_tensor(
        self, name: str, tensor: Tensor, shape: tuple[int, ...], image_size: ImageSize | None = None
    ) -> Tensor | None:
        if name != "pos_embed" or tensor.ndim != 3 or tensor.shape[::2] != shape[::2]:
            return None
        old = None if image_size is None else grid_of(image_size, self.config.patch_size)
        return resize_pos_embed(tensor, self.grid, self.num_prefix_tokens, old_grid=old)

    def fields_in(self, names: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        found = {name: name in names for name in ("class_token", "distillation_token")}
        if "alpha" in names:  # without one it may be another network, such as a ViT
            found["learnable_alpha"] = True
        return {name: value for name, value in found.items() if value != getattr(self.config, name)}


VARIANTS = {
    "revit_b": ReViTConfig(embed_dim=768, depth=12, num_heads=12),
    "revit_small": ReViTConfig(embed_dim=384, depth=12, num_heads=6),
    "revit_tiny": ReViTConfig(embed_dim=192, depth=12, num_heads=3),
    "revit_nano_patch4": ReViTConfig(embed_dim=96, depth=6, num_heads=3, patch_size=4, image_size=(32, 32)),
}

CHECKPOINT_KEYS = {
    "adiko": (
        Key("cls_token", "class_token"),
        Key("patch_embed", "stem"),
        Key("blocks.{i}.attn", "blocks.{i}.token_mixer"),
        Key("head.projection", "head"),
    ),
}

FAMILY = Family(
    name="revit",
    backbone=ReViT,
    variants=VARIANTS,
    weights_elsewhere="the authors link theirs on Google Drive (https://github.com/ADiko1997/ReViT)",
    checkpoint_keys=CHECKPOINT_KEYS,
    title="ReViT: Enhancing Vision Transformers Feature Diversity with Attention Residual Connections",
    authors="Diko et al.",
    venue="2024",
    arxiv="2402.11301",
    code="ADiko1997/ReViT @ 2188c96 (MIT text; README: research use)",
    ours={
        "revit_nano_patch4": "4-pixel patches for images of 32 to 48 pixels, small enough to train on a CPU",
        "revit_small": "ReViT-B's rule at the width of ViT-Small",
        "revit_tiny": "ReViT-B's rule at the width of ViT-Tiny",
    },
)
