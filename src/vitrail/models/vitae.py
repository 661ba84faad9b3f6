"""ViTAE: a transformer with the inductive biases of convolutions, scale and locality, inside its cells.

Paper: Xu et al., "ViTAE: Vision Transformer Advanced by Exploring Intrinsic Inductive Bias", NeurIPS 2021,
arXiv:2106.03348.
Compatible with: ViTAE-Transformer/ViTAE-Transformer @ aebf1d7, Image-Classification/vitae (parts Apache-2.0). The plain
models B, L and H, which have a class token and no pyramid, are the family ``vitae_plain``.

There is no position embedding: the padding of the convolutions encodes positions. The image size is any multiple of 16.

Shapes: b images, c channels, h and w pixels or tokens a side, n tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.core.types import FeatureInfo, Preprocessing
from vitrail.layers import MapAttention, Mlp, NormalCell, PerformerAttention, PyramidReduction
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

REDUCTION_BRANCH: tuple[BranchPart, ...] = ("conv", "act", "conv", "norm", "act", "conv", "act")
NORMAL_BRANCH: tuple[BranchPart, ...] = ("conv", "norm", "act", "conv", "norm", "act", "conv", "act")


@dataclass(frozen=True, kw_only=True)
class ViTAEConfig(BackboneConfig):
    """
    Attributes:
        reduction_dims: channels of one dilation's convolution, by stage.
        embed_dims, depths, num_heads: width, normal cells and their heads, by stage.
        mlp_ratio: inner over outer width of the MLPs in normal cells.
        conv_groups: groups of the normal cells' convolutions, by stage.
        strides, kernel_sizes, dilations: arguments of the reduction that opens each stage.
        linear_attention: whether a stage's reduction ends with Performer attention and a convolution branch; else the
            concatenated dilations are the stage's tokens as they are.
        reduction_drop: dropout in the reduction's attention and MLP.
    """

    reduction_dims: tuple[int, ...]
    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    mlp_ratio: float
    conv_groups: tuple[int, ...]
    strides: tuple[int, ...] = (4, 2, 2)
    kernel_sizes: tuple[int, ...] = (7, 3, 3)
    dilations: tuple[tuple[int, ...], ...] = ((1, 2, 3, 4), (1, 2, 3), (1, 2))
    linear_attention: tuple[bool, ...] = (True, True, False)
    reduction_drop: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("reduction_dims", "embed_dims", "depths", "num_heads", "conv_groups", "strides", "kernel_sizes")
        if {len(getattr(self, name)) for name in (*names, "dilations", "linear_attention")} != {len(self.depths)}:
            raise ConfigError(f"{', '.join(names)}, dilations and linear_attention need one entry a stage")
        stages = zip(self.linear_attention, self.reduction_dims, self.dilations, self.embed_dims, strict=True)
        for linear, reduction_dim, dilations, dim in stages:
            if not linear and reduction_dim * len(dilations) != dim:
                raise ConfigError(
                    f"a stage without linear attention has {len(dilations)} x {reduction_dim} channels; "
                    f"embed_dims says {dim}"
                )


class ReductionCell(nn.Module):
    """Embeds patches at several scales, mixes them by attention of linear cost, and adds local features."""

    def __init__(self, config: ViTAEConfig, stage: int, in_dim: int) -> None:
        super().__init__()
        reduction_dim, dim, stride = config.reduction_dims[stage], config.embed_dims[stage], config.strides[stage]
        dilations = config.dilations[stage]
        self.reduction = PyramidReduction(in_dim, reduction_dim, config.kernel_sizes[stage], stride, dilations)
        self.token_mixer: nn.Module | None = None
        if config.linear_attention[stage]:
            widths = (in_dim, reduction_dim, reduction_dim, dim)
            self.parallel_conv = parallel_conv(widths, REDUCTION_BRANCH, strides=reduction_strides(stride))
            self.norm1 = nn.LayerNorm(reduction_dim * len(dilations), eps=1e-5)
            self.token_mixer = PerformerAttention(reduction_dim * len(dilations), dim, drop=config.reduction_drop)
            self.norm2 = nn.LayerNorm(dim, eps=1e-5)
            self.mlp = Mlp(dim, dim)
            self.drop = nn.Dropout(config.reduction_drop)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        reduced = self.reduction(x)
        if self.token_mixer is None:
            return reduced
        tokens = self.token_mixer(self.norm1(reduced.flatten(2).transpose(1, 2)))
        tokens = tokens + self.parallel_conv(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.drop(self.mlp(self.norm2(tokens)))
        return tokens.transpose(1, 2).unflatten(2, reduced.shape[2:])


class Stage(nn.Module):
    """A reduction cell, then normal cells."""

    def __init__(self, config: ViTAEConfig, index: int, rates: list[float]) -> None:
        super().__init__()
        dim, groups = config.embed_dims[index], config.conv_groups[index]
        in_dim = config.embed_dims[index - 1] if index else config.in_chans
        self.downsample = ReductionCell(config, index, in_dim)
        self.blocks = nn.ModuleList()
        for rate in rates:
            branch = parallel_conv((dim, int(dim * config.mlp_ratio), dim, dim), NORMAL_BRANCH, groups=groups)
            mixer = MapAttention(dim, config.num_heads[index])
            self.blocks.append(NormalCell(mixer, branch, dim, config.mlp_ratio, rate))


class ViTAE(Backbone):
    """Three levels, at strides 4, 8 and 16; any image size whose sides are multiples of 16."""

    config: ViTAEConfig
    preprocessing = Preprocessing(crop_fraction=0.9)

    def __init__(self, config: ViTAEConfig) -> None:
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


TINY = ViTAEConfig(
    reduction_dims=(64, 64, 128),
    embed_dims=(64, 64, 256),
    depths=(0, 0, 7),
    num_heads=(1, 1, 4),
    mlp_ratio=2.0,
    conv_groups=(1, 1, 64),
)

VARIANTS = {
    "vitae_t": TINY,
    "vitae_6m": ViTAEConfig(
        reduction_dims=(64, 64, 128),
        embed_dims=(64, 64, 256),
        depths=(0, 0, 10),
        num_heads=(1, 1, 4),
        mlp_ratio=2.0,
        conv_groups=(1, 1, 64),
    ),
    "vitae_13m": ViTAEConfig(
        reduction_dims=(64, 64, 160),
        embed_dims=(64, 64, 320),
        depths=(0, 0, 11),
        num_heads=(1, 1, 5),
        mlp_ratio=2.0,
        conv_groups=(1, 1, 64),
    ),
    "vitae_s": ViTAEConfig(
        reduction_dims=(64, 64, 192),
        embed_dims=(96, 192, 384),
        depths=(0, 0, 14),
        num_heads=(1, 1, 6),
        mlp_ratio=3.0,
        conv_groups=(1, 1, 96),
    ),
    "vitae_nano_stride2": ViTAEConfig(
        reduction_dims=(16, 32, 64),
        embed_dims=(32, 64, 128),
        depths=(0, 0, 3),
        num_heads=(1, 1, 4),
        mlp_ratio=2.0,
        conv_groups=(1, 1, 32),
        strides=(2, 2, 2),
        kernel_sizes=(3, 3, 3),
        image_size=(48, 48),
    ),
}

CHECKPOINT_KEYS = {
    "vitae": (
        Key("layers.{s}.RC", "stages.{s}.downsample"),
        *(
            Key(f"layers.{{s}}.RC.PCM.{place}", f"stages.{{s}}.downsample.parallel_conv.{name}")
            for place, name in enumerate(branch_names(REDUCTION_BRANCH))
        ),
        Key("layers.{s}.RC.PRM.convs.{j}.0", "stages.{s}.downsample.reduction.convs.{j}"),
        Key("layers.{s}.RC.attn", "stages.{s}.downsample.token_mixer"),
        Key("layers.{s}.RC.attn.norm1", "stages.{s}.downsample.norm1"),
        Key("layers.{s}.RC.attn.norm2", "stages.{s}.downsample.norm2"),
        Key("layers.{s}.RC.attn.mlp.0", "stages.{s}.downsample.mlp.fc1"),
        Key("layers.{s}.RC.attn.mlp.2", "stages.{s}.downsample.mlp.fc2"),
        Key("layers.{s}.NC.{i}", "stages.{s}.blocks.{i}"),
        Key("layers.{s}.NC.{i}.attn", "stages.{s}.blocks.{i}.token_mixer"),
        *(
            Key(f"layers.{{s}}.NC.{{i}}.PCM.{place}", f"stages.{{s}}.blocks.{{i}}.parallel_conv.{name}")
            for place, name in enumerate(branch_names(NORMAL_BRANCH))
        ),
    ),
}

FAMILY = Family(
    name="vitae",
    backbone=ViTAE,
    variants=VARIANTS,
    weights_elsewhere="the authors link theirs on Google Drive "
    "(https://github.com/ViTAE-Transformer/ViTAE-Transformer)",
    checkpoint_keys=CHECKPOINT_KEYS,
    title="ViTAE: Vision Transformer Advanced by Exploring Intrinsic Inductive Bias",
    authors="Xu et al.",
    venue="NeurIPS 2021",
    arxiv="2106.03348",
    code="ViTAE-Transformer/ViTAE-Transformer @ aebf1d7 (parts Apache-2.0)",
    ours={"vitae_nano_stride2": "reductions of stride 2 for images of 32 to 64 pixels, small enough to train on a CPU"},
)
