"""ViTAE-B, L and H: a plain ViT with a branch of convolutions beside every attention.

Paper: Zhang et al., "ViTAEv2: Vision Transformer Advanced by Exploring Inductive Bias for Image Recognition and
Beyond", IJCV 2023, arXiv:2202.10108, which scales up the models of Xu et al., "ViTAE", NeurIPS 2021,
arXiv:2106.03348.
Compatible with: ViTAE-Transformer/ViTAE-Transformer @ aebf1d7, Image-Classification/vitae (parts Apache-2.0).

Attention includes the class token, but the classifier reads the mean of the patches.

Shapes: b images, c channels, h and w pixels; n tokens (class token first), d width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitrail.core.types import FeatureInfo, ImageSize, Preprocessing
from vitrail.layers import Attention, Mlp, PatchEmbed, resize_pos_embed
from vitrail.layers.vitae_cells import BranchPart, branch_names, parallel_conv
from vitrail.models.base import Backbone, BackboneConfig, drop_path_rates, grid_of, make_classifier
from vitrail.models.checkpoint import Key
from vitrail.models.family import Family

BRANCH: tuple[BranchPart, ...] = ("conv", "norm", "act", "conv")


@dataclass(frozen=True, kw_only=True)
class ViTAEPlainConfig(BackboneConfig):
    """
    Attributes:
        patch_size: pixels a side.
        conv_groups: groups of the two convolutions beside every attention.
        parallel_conv: build these convolutions; without them the model is a plain ViT, for ablations.
    """

    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    conv_groups: int = 192
    parallel_conv: bool = True


class NormalCell(nn.Module):
    """Pre-norm transformer block; the patches of its raw input also pass through two convolutions."""

    def __init__(self, config: ViTAEPlainConfig, grid: ImageSize, drop_path: float) -> None:
        super().__init__()
        dim, hidden_dim = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        self.grid = grid
        self.parallel_conv: nn.Module | None = None
        if config.parallel_conv:
            self.parallel_conv = parallel_conv((dim, hidden_dim, dim), BRANCH, groups=config.conv_groups)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.token_mixer = Attention(dim, config.num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden_dim)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        mixed = x + self.drop_path(self.token_mixer(self.norm1(x)))
        if self.parallel_conv is not None:
            local = self.parallel_conv(x[:, 1:].transpose(1, 2).unflatten(2, self.grid)).flatten(2).transpose(1, 2)
            mixed = torch.cat([mixed[:, :1], mixed[:, 1:] + self.drop_path(local)], 1)
        return mixed + self.drop_path(self.mlp(self.norm2(mixed)))


class ViTAEPlain(Backbone):
    """Levels are the outputs of the cells, all at the stride of a patch."""

    config: ViTAEPlainConfig
    preprocessing = Preprocessing(crop_fraction=0.9)
    num_prefix_tokens = 1

    def __init__(self, config: ViTAEPlainConfig) -> None:
        super().__init__(config)
        dim = config.embed_dim
        self.size_divisor = config.patch_size
        super().check_image_size(*config.image_size)
        self.grid = grid_of(config.image_size, config.patch_size)
        self.stem = PatchEmbed(config.in_chans, dim, config.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1] + 1, dim))
        rates = drop_path_rates(config.drop_path_rate, config.depth)
        self.blocks = nn.ModuleList(NormalCell(config, self.grid, rate) for rate in rates)
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = make_classifier(dim, config.num_classes)
        self.num_features = dim
        self.feature_info = tuple(
            FeatureInfo(name=f"blocks.{i}", channels=dim, stride=config.patch_size) for i in range(config.depth)
        )
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.class_token, std=0.02)

    def check_image_size(self, height: int, width: int) -> None:
        self.require_built_size(height, width, "position table")

    def forward_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        x = self.stem(x)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = self.run_block(block, x)
            yield x

    def to_map(self, x: Float[Tensor, "b n d"], image_size: ImageSize) -> Float[Tensor, "b d h w"]:
        return x[:, 1:].transpose(1, 2).unflatten(2, self.grid)

    def pool(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        return self.fc_norm(x[:, 1:].mean(1))

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "class_token"}

    def layer_groups(self) -> list[tuple[str, ...]]:
        first, *rest = super().layer_groups()
        return [(*first, "class_token", "pos_embed"), *rest]

    def adapt_tensor(
        self, name: str, tensor: Tensor, shape: tuple[int, ...], image_size: ImageSize | None = None
    ) -> Tensor | None:
        if name != "pos_embed" or tensor.ndim != 3 or tensor.shape[::2] != shape[::2]:
            return None
        old = None if image_size is None else grid_of(image_size, self.config.patch_size)
        return resize_pos_embed(tensor, self.grid, self.num_prefix_tokens, old_grid=old)


VARIANTS = {
    "vitae_b": ViTAEPlainConfig(),
    "vitae_l": ViTAEPlainConfig(embed_dim=1024, depth=24, num_heads=16, conv_groups=256),
    "vitae_h": ViTAEPlainConfig(embed_dim=1280, depth=32, num_heads=16, conv_groups=320),
    "vitae_plain_nano_patch4": ViTAEPlainConfig(
        embed_dim=96, depth=4, num_heads=3, mlp_ratio=2.0, conv_groups=24, patch_size=4, image_size=(32, 32)
    ),
}

CHECKPOINT_KEYS = {
    "vitae": (
        Key("layers.0.RC.PRM", "stem"),
        Key("layers.0.RC.cls_token", "class_token"),
        Key("layers.0.RC.pos_embed", "pos_embed"),
        Key("layers.2.NC.{i}", "blocks.{i}"),
        Key("layers.2.NC.{i}.attn", "blocks.{i}.token_mixer"),
        *(
            Key(f"layers.2.NC.{{i}}.PCM.{place}", f"blocks.{{i}}.parallel_conv.{name}")
            for place, name in enumerate(branch_names(BRANCH))
        ),
    ),
}

FAMILY = Family(
    name="vitae_plain",
    backbone=ViTAEPlain,
    variants=VARIANTS,
    weights_elsewhere="the authors link theirs on Google Drive and OneDrive "
    "(https://github.com/ViTAE-Transformer/ViTAE-Transformer)",
    checkpoint_keys=CHECKPOINT_KEYS,
    title="ViTAEv2: Vision Transformer Advanced by Exploring Inductive Bias for Image Recognition and Beyond",
    authors="Zhang et al.",
    venue="IJCV 2023",
    arxiv="2202.10108",
    code="ViTAE-Transformer/ViTAE-Transformer @ aebf1d7 (parts Apache-2.0)",
    ours={"vitae_plain_nano_patch4": "4-pixel patches for images of 32 to 48 pixels, small enough to train on a CPU"},
)
