"""EdgeViT: attention that a phone can afford, among delegates only (local-global-local).

Paper: Pan et al., "EdgeViTs: Competing Light-weight CNNs on Mobile Devices with Vision Transformers", ECCV 2022,
arXiv:2205.03436.
Compatible with: saic-fi/edgevit @ df3d070 (Apache-2.0). Where paper and code differ (EdgeViT-S has 13.1 M parameters in
the code, 11.1 M in the paper) the code is followed.

Shapes: b images, c channels, h and w pixels or tokens a side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import lcm, prod

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitrail.core.errors import ConfigError
from vitrail.core.types import FeatureInfo
from vitrail.layers import ConvMlp, GlobalSparseAttention, LayerNorm2d, LocalAggregation, Mlp
from vitrail.layers.conv import fold_norm_before
from vitrail.models.base import Backbone, BackboneConfig, drop_path_rates, make_classifier
from vitrail.models.checkpoint import Key
from vitrail.models.family import Family


@dataclass(frozen=True, kw_only=True)
class EdgeViTConfig(BackboneConfig):
    """
    Attributes:
        embed_dims, depths: width and number of blocks of every stage.
        head_dim: width of an attention head, the same everywhere.
        sr_ratios: one delegate out of r x r tokens, by stage; 1 means full attention and no local part.
        strides: stride of the convolution that opens each stage.
    """

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    head_dim: int
    sr_ratios: tuple[int, ...] = (4, 2, 2, 1)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        lengths = {len(self.embed_dims), len(self.depths), len(self.sr_ratios), len(self.strides)}
        if len(lengths) != 1:
            raise ConfigError("embed_dims, depths, sr_ratios and strides need one entry a stage")
        if any(dim % self.head_dim for dim in self.embed_dims):
            raise ConfigError(f"embed_dims={self.embed_dims} are not all multiples of head_dim={self.head_dim}")


class LocalBlock(nn.Module):
    """The first half of a block: a convolution mixes neighbours."""

    def __init__(self, dim: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1: nn.Module = nn.BatchNorm2d(dim)
        self.token_mixer = LocalAggregation(dim)
        self.norm2: nn.Module = nn.BatchNorm2d(dim)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        x = x + self.pos_embed(x)
        x = x + self.drop_path(self.token_mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def fuse(self) -> None:
        """Fold the norms into the pointwise convolutions after them."""
        if isinstance(self.norm1, nn.BatchNorm2d) and isinstance(self.norm2, nn.BatchNorm2d):
            fold_norm_before(self.norm1, self.token_mixer.conv1)
            fold_norm_before(self.norm2, self.mlp.fc1)
            self.norm1, self.norm2 = nn.Identity(), nn.Identity()


class GlobalBlock(nn.Module):
    """The second half: delegates attend to each other, and the result is spread to their neighbours."""

    def __init__(self, dim: int, num_heads: int, sr_ratio: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.token_mixer = GlobalSparseAttention(dim, num_heads, sr_ratio)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        x = (x + self.pos_embed(x)).permute(0, 2, 3, 1)
        x = x + self.drop_path(self.token_mixer(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Fewer, wider tokens, then local-global-local blocks."""

    def __init__(self, config: EdgeViTConfig, index: int, in_dim: int, rates: list[float]) -> None:
        super().__init__()
        dim, stride, sr_ratio = config.embed_dims[index], config.strides[index], config.sr_ratios[index]
        self.downsample = nn.Sequential()
        self.downsample.add_module("proj", nn.Conv2d(in_dim, dim, stride, stride))
        self.downsample.add_module("norm", LayerNorm2d(dim, eps=1e-5))
        self.blocks = nn.ModuleList()
        for rate in rates:
            block = nn.Sequential()
            if sr_ratio > 1:
                block.add_module("local_block", LocalBlock(dim, config.mlp_ratio, rate))
            heads = dim // config.head_dim
            block.add_module("global_block", GlobalBlock(dim, heads, sr_ratio, config.mlp_ratio, rate))
            self.blocks.append(block)


class EdgeViT(Backbone):
    """Four levels, at strides 4, 8, 16 and 32; any image size whose sides are multiples of 32."""

    config: EdgeViTConfig

    def __init__(self, config: EdgeViTConfig) -> None:
        super().__init__(config)
        strides = [prod(config.strides[: i + 1]) for i in range(len(config.strides))]
        self.size_divisor = lcm(*(stride * r for stride, r in zip(strides, config.sr_ratios, strict=True)))
        self.check_image_size(*config.image_size)
        rates = iter(drop_path_rates(config.drop_path_rate, sum(config.depths)))
        in_dims = (config.in_chans, *config.embed_dims)
        self.stages = nn.ModuleList(
            Stage(config, i, in_dims[i], [next(rates) for _ in range(depth)]) for i, depth in enumerate(config.depths)
        )
        self.num_features = config.embed_dims[-1]
        self.norm = nn.BatchNorm2d(self.num_features)
        self.head = make_classifier(self.num_features, config.num_classes)
        self.feature_info = tuple(
            FeatureInfo(name=f"stages.{i}", channels=dim, stride=strides[i]) for i, dim in enumerate(config.embed_dims)
        )
        self.init_weights()

    def forward_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        for stage in self.stages:
            assert isinstance(stage, Stage)
            x = stage.downsample(x)
            for block in stage.blocks:
                x = self.run_block(block, x)
            yield x

    def final_norm(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.norm(x)

    def pool(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return x.mean((2, 3))


XXS = EdgeViTConfig(embed_dims=(36, 72, 144, 288), depths=(1, 1, 3, 2), head_dim=36)

VARIANTS = {
    "edgevit_xxs": XXS,
    "edgevit_xs": EdgeViTConfig(embed_dims=(48, 96, 240, 384), depths=(1, 1, 3, 1), head_dim=48),
    "edgevit_s": EdgeViTConfig(embed_dims=(48, 96, 240, 384), depths=(1, 2, 5, 3), head_dim=48),
    "edgevit_xxs_stride2": replace(XXS, strides=(2, 2, 2, 2), image_size=(48, 48)),
    "edgevit_nano_stride2": EdgeViTConfig(
        embed_dims=(24, 48, 96, 192), depths=(1, 1, 2, 1), head_dim=24, strides=(2, 2, 2, 2), image_size=(48, 48)
    ),
}

CHECKPOINT_KEYS = {
    "saic-fi": (
        Key("patch_embed{s+1}", "stages.{s}.downsample"),
        Key("blocks{s+1}.{i}.LocalAgg", "stages.{s}.blocks.{i}.local_block"),
        Key("blocks{s+1}.{i}.LocalAgg.conv1", "stages.{s}.blocks.{i}.local_block.token_mixer.conv1"),
        Key("blocks{s+1}.{i}.LocalAgg.attn", "stages.{s}.blocks.{i}.local_block.token_mixer.depthwise"),
        Key("blocks{s+1}.{i}.LocalAgg.conv2", "stages.{s}.blocks.{i}.local_block.token_mixer.conv2"),
        Key("blocks{s+1}.{i}.SelfAttn", "stages.{s}.blocks.{i}.global_block"),
        Key("blocks{s+1}.{i}.SelfAttn.attn", "stages.{s}.blocks.{i}.global_block.token_mixer"),
        Key("blocks{s+1}.{i}.SelfAttn.attn.LocalProp", "stages.{s}.blocks.{i}.global_block.token_mixer.propagate"),
    ),
}

FAMILY = Family(
    name="edgevit",
    backbone=EdgeViT,
    variants=VARIANTS,
    weights_elsewhere="the authors never published any (https://github.com/saic-fi/edgevit)",
    checkpoint_keys=CHECKPOINT_KEYS,
    title="EdgeViTs: Competing Light-weight CNNs on Mobile Devices with Vision Transformers",
    authors="Pan et al.",
    venue="ECCV 2022",
    arxiv="2205.03436",
    code="saic-fi/edgevit @ df3d070 (Apache-2.0)",
    ours={
        "edgevit_xxs_stride2": "EdgeViT-XXS whose stem has stride 2, for images of 32 to 64 pixels",
        "edgevit_nano_stride2": "narrower and shallower still, to train on a CPU in minutes",
    },
)
