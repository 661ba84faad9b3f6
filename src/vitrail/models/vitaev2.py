"""ViTAEv2: ViTAE's cells in a pyramid of four stages, with window attention where maps are large.

Paper: Zhang et al., "ViTAEv2: Vision Transformer Advanced by Exploring Inductive Bias for Image Recognition and
Beyond", IJCV 2023, arXiv:2202.10108.
Compatible with: ViTAE-Transformer/ViTAE-Transformer @ aebf1d7, Image-Classification/vitaev2 (parts Apache-2.0).

There is no position embedding: the padding of the convolutions encodes positions. The sides of the image are any
multiples of 32; windows are padded with zeros.

Shapes: b images, c channels, h and w pixels or tokens a side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.core.types import FeatureInfo, ImageSize, Preprocessing
from vitrail.layers import (
    MapAttention,
    Mlp,
    NormalCell,
    PyramidReduction,
    ValueSkipAttention,
    WindowAttention,
    resize_rel_pos_bias,
)
from vitrail.layers.vitae_cells import (
    BranchPart,
    branch_names,
    parallel_conv,
    reduction_strides,
    sliced_drop_path_rates,
)
from vitrail.models.base import Backbone, BackboneConfig, make_classifier
from vitrail.models.checkpoint import Key
from vitrail.models.family import Family

BRANCH: tuple[BranchPart, ...] = ("conv", "norm", "act", "conv", "norm", "act", "conv")


@dataclass(frozen=True, kw_only=True)
class ViTAEv2Config(BackboneConfig):
    """
    Attributes:
        reduction_dims: channels of one dilation's convolution, by stage.
        embed_dims, depths: width and number of normal cells, by stage.
        num_heads, reduction_heads: heads in normal and in reduction cells, by stage.
        conv_groups, reduction_groups: groups of their convolutions, by stage.
        token_mixers: "window" or "full" attention, by stage, in both kinds of cells.
        window_size: tokens a side.
        rel_pos_bias: learn a bias for every relative position in the windows (the published weights have none).
        strides, kernel_sizes, dilations: arguments of the reduction that opens each stage.
    """

    reduction_dims: tuple[int, ...]
    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    reduction_heads: tuple[int, ...]
    conv_groups: tuple[int, ...] = (1, 32, 64, 128)
    reduction_groups: tuple[int, ...] = (1, 16, 32, 64)
    token_mixers: tuple[Literal["window", "full"], ...] = ("window", "window", "full", "full")
    window_size: int = 7
    rel_pos_bias: bool = False
    mlp_ratio: float = 4.0
    strides: tuple[int, ...] = (4, 2, 2, 2)
    kernel_sizes: tuple[int, ...] = (7, 3, 3, 3)
    dilations: tuple[tuple[int, ...], ...] = ((1, 2, 3, 4), (1, 2, 3), (1, 2), (1, 2))

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ["reduction_dims", "embed_dims", "depths", "num_heads", "reduction_heads", "conv_groups"]
        names += ["reduction_groups", "token_mixers", "strides", "kernel_sizes", "dilations"]
        if {len(getattr(self, name)) for name in names} != {len(self.depths)}:
            raise ConfigError(f"{', '.join(names)} need one entry a stage")
        if set(self.token_mixers) - {"window", "full"}:
            raise ConfigError(f"token_mixers={self.token_mixers} may hold 'window' and 'full' only")


class ReductionCell(nn.Module):
    """Embeds patches at several scales, mixes them by window or full attention, and adds local features."""

    def __init__(self, config: ViTAEv2Config, stage: int, in_dim: int) -> None:
        super().__init__()
        reduction_dim, dim, stride = config.reduction_dims[stage], config.embed_dims[stage], config.strides[stage]
        dilations, heads = config.dilations[stage], config.reduction_heads[stage]
        wide = reduction_dim * len(dilations)
        self.reduction = PyramidReduction(in_dim, reduction_dim, config.kernel_sizes[stage], stride, dilations)
        self.parallel_conv = parallel_conv(
            (in_dim, reduction_dim, reduction_dim, dim),
            BRANCH,
            groups=config.reduction_groups[stage],
            strides=reduction_strides(stride),
        )
        self.norm1 = nn.LayerNorm(wide, eps=1e-5)
        self.token_mixer: nn.Module = (
            WindowAttention(wide, heads, config.window_size, out_dim=dim, rel_pos_bias=config.rel_pos_bias)
            if config.token_mixers[stage] == "window"
            else ValueSkipAttention(wide, dim, heads)
        )
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = Mlp(dim, dim)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        local = self.parallel_conv(x).permute(0, 2, 3, 1)
        x = self.norm1(self.reduction(x).permute(0, 2, 3, 1))
        x = self.token_mixer(x)
        x = x + local
        x = x + self.mlp(self.norm2(x))
        return x.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """A reduction cell, then normal cells."""

    def __init__(self, config: ViTAEv2Config, index: int, rates: list[float]) -> None:
        super().__init__()
        dim, heads, groups = config.embed_dims[index], config.num_heads[index], config.conv_groups[index]
        in_dim = config.embed_dims[index - 1] if index else config.in_chans
        self.downsample = ReductionCell(config, index, in_dim)
        self.blocks = nn.ModuleList()
        for rate in rates:
            mixer = (
                WindowAttention(dim, heads, config.window_size, rel_pos_bias=config.rel_pos_bias)
                if config.token_mixers[index] == "window"
                else MapAttention(dim, heads)
            )
            branch = parallel_conv((dim, int(dim * config.mlp_ratio), dim, dim), BRANCH, groups=groups)
            self.blocks.append(NormalCell(mixer, branch, dim, config.mlp_ratio, rate))


class ViTAEv2(Backbone):
    """Four levels, at strides 4, 8, 16 and 32; any image size whose sides are multiples of 32."""

    config: ViTAEv2Config
    preprocessing = Preprocessing(crop_fraction=0.9)

    def __init__(self, config: ViTAEv2Config) -> None:
        super().__init__(config)
        strides = [prod(config.strides[: i + 1]) for i in range(len(config.strides))]
        self.size_divisor = strides[-1]
        self.check_image_size(*config.image_size)
        rates = sliced_drop_path_rates(config.drop_path_rate, config.depths)
        self.stages = nn.ModuleList(Stage(config, i, stage_rates) for i, stage_rates in enumerate(rates))
        self.num_features = config.embed_dims[-1]
        self.head = make_classifier(self.num_features, config.num_classes)
        self.feature_info = tuple(
            FeatureInfo(name=f"stages.{i}", channels=dim, stride=strides[i]) for i, dim in enumerate(config.embed_dims)
        )
        self.init_weights()

    def forward_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        for stage in self.stages:
            assert isinstance(stage, Stage)
            x = self.run_block(stage.downsample, x)
            for block in stage.blocks:
                x = self.run_block(block, x)
            yield x

    def pool(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return x.mean((2, 3))

    def adapt_tensor(
        self, name: str, tensor: Tensor, shape: tuple[int, ...], image_size: ImageSize | None = None
    ) -> Tensor | None:
        if not name.endswith("rel_pos_bias") or tensor.ndim != 2 or tensor.shape[1] != shape[1]:
            return None
        return resize_rel_pos_bias(tensor, shape[0])


VARIANTS = {
    "vitaev2_s": ViTAEv2Config(
        reduction_dims=(64, 64, 128, 256),
        embed_dims=(64, 128, 256, 512),
        depths=(2, 2, 8, 2),
        num_heads=(1, 2, 4, 8),
        reduction_heads=(1, 1, 2, 4),
    ),
    "vitaev2_48m": ViTAEv2Config(
        reduction_dims=(64, 64, 192, 384),
        embed_dims=(96, 192, 384, 768),
        depths=(2, 2, 11, 2),
        num_heads=(1, 2, 4, 8),
        reduction_heads=(1, 1, 2, 4),
    ),
    "vitaev2_b": ViTAEv2Config(
        reduction_dims=(96, 96, 256, 512),
        embed_dims=(128, 256, 512, 1024),
        depths=(2, 2, 12, 2),
        num_heads=(1, 4, 8, 16),
        reduction_heads=(1, 1, 4, 8),
    ),
    "vitaev2_nano_stride2": ViTAEv2Config(
        reduction_dims=(16, 16, 32, 64),
        embed_dims=(16, 32, 64, 128),
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 2, 4),
        reduction_heads=(1, 1, 2, 4),
        conv_groups=(1, 8, 16, 32),
        reduction_groups=(1, 8, 16, 32),
        strides=(2, 2, 2, 2),
        kernel_sizes=(3, 3, 3, 3),
        image_size=(48, 48),
    ),
}

CHECKPOINT_KEYS = {
    "vitae": (
        Key("layers.{s}.RC", "stages.{s}.downsample"),
        *(
            Key(f"layers.{{s}}.RC.PCM.{place}", f"stages.{{s}}.downsample.parallel_conv.{name}")
            for place, name in enumerate(branch_names(BRANCH))
        ),
        Key("layers.{s}.RC.PRM.convs.{j}.0", "stages.{s}.downsample.reduction.convs.{j}"),
        Key("layers.{s}.RC.attn", "stages.{s}.downsample"),
        Key("layers.{s}.RC.attn.attn", "stages.{s}.downsample.token_mixer"),
        Key("layers.{s}.RC.attn.attn.relative_position_index", None),
        Key("layers.{s}.RC.attn.attn.relative_position_bias_table", "stages.{s}.downsample.token_mixer.rel_pos_bias"),
        Key("layers.{s}.RC.attn.attn_mask", None),
        Key("layers.{s}.NC.{i}", "stages.{s}.blocks.{i}"),
        Key("layers.{s}.NC.{i}.attn", "stages.{s}.blocks.{i}.token_mixer"),
        Key("layers.{s}.NC.{i}.attn.relative_position_index", None),
        Key("layers.{s}.NC.{i}.attn.relative_position_bias_table", "stages.{s}.blocks.{i}.token_mixer.rel_pos_bias"),
        Key("layers.{s}.NC.{i}.attn_mask", None),
        *(
            Key(f"layers.{{s}}.NC.{{i}}.PCM.{place}", f"stages.{{s}}.blocks.{{i}}.parallel_conv.{name}")
            for place, name in enumerate(branch_names(BRANCH))
        ),
    ),
}

FAMILY = Family(
    name="vitaev2",
    backbone=ViTAEv2,
    variants=VARIANTS,
    weights_elsewhere="the authors link theirs on OneDrive (https://github.com/ViTAE-Transformer/ViTAE-Transformer)",
    checkpoint_keys=CHECKPOINT_KEYS,
    title="ViTAEv2: Vision Transformer Advanced by Exploring Inductive Bias for Image Recognition and Beyond",
    authors="Zhang et al.",
    venue="IJCV 2023",
    arxiv="2202.10108",
    code="ViTAE-Transformer/ViTAE-Transformer @ aebf1d7 (parts Apache-2.0)",
    ours={"vitaev2_nano_stride2": "reductions of stride 2 for images of 32 to 64 pixels, to train on a CPU"},
)
