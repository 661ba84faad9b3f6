"""MobileViT, a convolutional pyramid with transformers inside; ExMobileViT, whose classifier also reads earlier levels.

Papers: Mehta and Rastegari, "MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision Transformer", ICLR
2022, arXiv:2110.02178; Yang et al., "ExMobileViT: Lightweight Classifier Extension for Mobile Vision Transformer",
arXiv:2309.01310.
Compatible with: timm 1.0.31 `mobilevit_*` (Apache-2.0) and transformers 5.23 `MobileViTForImageClassification`
(Apache-2.0). The published weights (Apple, apple/ml-cvnets @ 7771756) have Apple's licence and expect pixels in [0, 1]
without further normalisation.

Shapes: b images, c channels, h and w pixels of a map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.core.types import FeatureInfo, ImageSize, Preprocessing
from vitrail.layers import ConvNormAct, ExShortcut, InvertedResidual, MobileViTBlock
from vitrail.models.base import Backbone, BackboneConfig, drop_path_rates, make_classifier
from vitrail.models.checkpoint import Key
from vitrail.models.family import Family
from vitrail.models.pretrained import PretrainedWeights

NUM_CONV_STAGES = 2
"""The first stages are convolutions only; each of the others ends in a MobileViT block."""


@dataclass(frozen=True, kw_only=True)
class MobileViTConfig(BackboneConfig):
    """
    Attributes:
        stem_dim, embed_dims: width of the stem and of the five stages.
        depths: number of inverted residuals of every stage.
        transformer_dims, transformer_depths: width and number of blocks of the transformers in the last three stages.
        expand_ratio: inner over outer width of the inverted residuals.
        expand_dim: width of the 1x1 convolution before the classifier.
        strides: strides of the stem and of the five stages.
    """

    embed_dims: tuple[int, ...]
    transformer_dims: tuple[int, ...]
    expand_dim: int
    image_size: ImageSize = (256, 256)
    stem_dim: int = 16
    depths: tuple[int, ...] = (1, 3, 1, 1, 1)
    transformer_depths: tuple[int, ...] = (2, 4, 3)
    expand_ratio: float = 4.0
    num_heads: int = 4
    mlp_ratio: float = 2.0
    strides: tuple[int, ...] = (2, 1, 2, 2, 2, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        stages = len(self.embed_dims)
        if not stages == len(self.depths) == len(self.strides) - 1:
            raise ConfigError("embed_dims and depths need one entry a stage, strides one more for the stem")
        if not len(self.transformer_dims) == len(self.transformer_depths) == stages - NUM_CONV_STAGES:
            raise ConfigError(f"transformer_dims and transformer_depths need {stages - NUM_CONV_STAGES} entries")
        if any(dim % self.num_heads for dim in self.transformer_dims):
            raise ConfigError(
                f"transformer_dims={self.transformer_dims} are not all multiples of num_heads={self.num_heads}"
            )


class Stage(nn.Module):
    """Inverted residuals, the first with the stride, and in the later stages a MobileViT block."""

    def __init__(self, config: MobileViTConfig, index: int, in_dim: int, rates: list[float]) -> None:
        super().__init__()
        dim, stride = config.embed_dims[index], config.strides[index + 1]
        self.blocks = nn.ModuleList(
            InvertedResidual(dim if j else in_dim, dim, 1 if j else stride, config.expand_ratio)
            for j in range(config.depths[index])
        )
        if index >= NUM_CONV_STAGES:
            transformer_dim = config.transformer_dims[index - NUM_CONV_STAGES]
            self.blocks.append(
                MobileViTBlock(
                    dim,
                    transformer_dim,
                    len(rates),
                    num_heads=config.num_heads,
                    mlp_ratio=config.mlp_ratio,
                    drop_paths=rates,
                )
            )


class MobileViT(Backbone):
    """Five levels at strides 2 to 32; the last is the wide map that the classifier averages.

    Any image size: convolutions round odd maps up, as in the references, and the transformers stretch them to even
    ones. A level is then ceil(image_size / stride) pixels a side.
    """

    config: MobileViTConfig
    preprocessing = Preprocessing(image_size=(256, 256), mean=(0.0,) * 3, std=(1.0,) * 3, crop_fraction=0.9)

    def __init__(self, config: MobileViTConfig) -> None:
        super().__init__(config)
        self.check_image_size(*config.image_size)
        rates = iter(drop_path_rates(config.drop_path_rate, sum(config.transformer_depths)))
        depths = (0,) * NUM_CONV_STAGES + config.transformer_depths
        in_dims = (config.stem_dim, *config.embed_dims)
        self.stem = ConvNormAct(config.in_chans, config.stem_dim, 3, config.strides[0])
        self.stages = nn.ModuleList(
            Stage(config, i, in_dims[i], [next(rates) for _ in range(depth)]) for i, depth in enumerate(depths)
        )
        self.make_top()
        self.head = make_classifier(self.num_features, config.num_classes)
        self.init_weights()

    def make_top(self) -> None:
        """The layers between the last stage and the last level."""
        config = self.config
        self.final_conv = ConvNormAct(config.embed_dims[-1], config.expand_dim)
        self.set_levels("final_conv", config.expand_dim)

    def set_levels(self, last_name: str, num_features: int) -> None:
        """Describe the levels: all stages but the last, and the result of :meth:`make_top`."""
        strides = [prod(self.config.strides[: i + 2]) for i in range(len(self.config.embed_dims))]
        names = [f"stages.{i}" for i in range(len(strides) - 1)] + [last_name]
        channels = [*self.config.embed_dims[:-1], num_features]
        self.num_features = num_features
        self.feature_info = tuple(
            FeatureInfo(name=name, channels=width, stride=stride)
            for name, width, stride in zip(names, channels, strides, strict=True)
        )

    def init_weights(self) -> None:
        super().init_weights()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def run_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        """The outputs of the stages, before what :meth:`make_top` made."""
        x = self.stem(x)
        for stage in self.stages:
            assert isinstance(stage, Stage)
            for block in stage.blocks:
                x = self.run_block(block, x)
            yield x

    def forward_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        for index, level in enumerate(self.run_stages(x)):
            yield self.final_conv(level) if index == len(self.stages) - 1 else level

    def pool(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return x.mean((2, 3))

    def layer_groups(self) -> list[tuple[str, ...]]:
        return [("stem.",), *((f"stages.{i}.",) for i in range(len(self.stages)))]


@dataclass(frozen=True, kw_only=True)
class ExMobileViTConfig(MobileViTConfig):
    """
    Attributes:
        shortcut_dims: channels that the last three stages give to the classifier.
        official_crop: average only the top-left 25x25 and 9x9 pixels of the first two, as the authors' code does by its
            fixed pooling windows (of 32x32 and 16x16 at 256 pixels); the paper writes average pooling.
    """

    shortcut_dims: tuple[int, ...]
    expand_dim: int = 0
    official_crop: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shortcut_dims) != len(self.transformer_dims):
            raise ConfigError(f"shortcut_dims={self.shortcut_dims} need {len(self.transformer_dims)} entries")
        if self.expand_dim:
            raise ConfigError("ExMobileViT has no expand_dim; its shortcut_dims take that place")


class ExMobileViT(MobileViT):
    """MobileViT whose classifier reads the last three stages (:class:`~vitrail.layers.ExShortcut`).

    The last level is a map of the last stage's size, sum(shortcut_dims) wide: the shallower stages' means, constant
    over the map, then the last stage's projection, so that its mean is what the classifier reads.

    The paper promises +0.68 points of top-1 for +5.16 % of parameters (exmobilevit_928). That percentage has two
    readings. 288 x 1000 more classifier weights on Apple's MobileViT-S (5,578,632) are exactly 5.16 %: then the two new
    1x1 convolutions (33,344 parameters) are not counted, or the features are taken where the widths already are 128 and
    160. With them, as here, it is 5,899,976 parameters, +5.76 %. The authors' code (EmPasLab/ExMobileVIT @ 761e05a, no
    licence) extends another MobileViT (heads of width 8, no norm after the transformer, no bias in the classifier)
    of 5,636,720 parameters and grows by -1.39 % (576), -0.11 % (640) and +5.70 % (928); its 864 is not published, and
    96 + 128 + 640 is our reading of the pattern. Here the body is Apple's, so that its published weights load
    (``replace_head=True``).
    """

    config: ExMobileViTConfig
    head_prefixes = ("head.", "ex_shortcut.")

    def make_top(self) -> None:
        config = self.config
        crops = (25, 9, None) if config.official_crop else None
        in_dims = config.embed_dims[NUM_CONV_STAGES:]
        self.ex_shortcut = ExShortcut(in_dims, config.shortcut_dims, crops)
        self.set_levels("ex_shortcut", self.ex_shortcut.num_features)

    def forward_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        kept = []
        for index, level in enumerate(self.run_stages(x)):
            if index >= NUM_CONV_STAGES:
                kept.append(level)
            yield self.ex_shortcut.forward_map(kept) if index == len(self.stages) - 1 else level


XXS = MobileViTConfig(
    embed_dims=(16, 24, 48, 64, 80), transformer_dims=(64, 80, 96), expand_dim=320, expand_ratio=2.0, drop_rate=0.1
)
XS = MobileViTConfig(embed_dims=(32, 48, 64, 80, 96), transformer_dims=(96, 120, 144), expand_dim=384, drop_rate=0.1)
S = MobileViTConfig(embed_dims=(32, 64, 96, 128, 160), transformer_dims=(144, 192, 240), expand_dim=640, drop_rate=0.1)
NANO = MobileViTConfig(
    embed_dims=(16, 24, 32, 48, 64),
    transformer_dims=(48, 64, 80),
    expand_dim=256,
    expand_ratio=2.0,
    transformer_depths=(1, 2, 1),
    strides=(2, 1, 1, 2, 2, 1),
    image_size=(48, 48),
)

VARIANTS = {"mobilevit_xxs": XXS, "mobilevit_xs": XS, "mobilevit_s": S, "mobilevit_nano": NANO}


def _weights(name: str, top1: float) -> PretrainedWeights:
    return PretrainedWeights(
        hub_id=f"timm/{name}.cvnets_in1k",
        tag="cvnets_in1k",
        image_size=(256, 256),
        preprocessing=Preprocessing(image_size=(256, 256), mean=(0.0,) * 3, std=(1.0,) * 3, crop_fraction=0.9),
        licence="cvnets-license",
        top1=top1,
        source="ml-cvnets' model zoo",
    )


_TOP1 = {"mobilevit_xxs": 69.0, "mobilevit_xs": 74.7, "mobilevit_s": 78.3}
WEIGHTS = {name: (_weights(name, top1),) for name, top1 in _TOP1.items()}


def _extended(base: MobileViTConfig, *shortcut_dims: int) -> ExMobileViTConfig:
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__ if name != "expand_dim"}
    return ExMobileViTConfig(**fields, shortcut_dims=shortcut_dims)


EX_VARIANTS = {
    "exmobilevit_576": _extended(S, 32, 64, 480),
    "exmobilevit_640": _extended(S, 32, 128, 480),
    "exmobilevit_864": _extended(S, 96, 128, 640),
    "exmobilevit_928": _extended(S, 128, 160, 640),
    "exmobilevit_xs_560": _extended(XS, 80, 96, 384),
    "exmobilevit_xxs_464": _extended(XXS, 64, 80, 320),
    "exmobilevit_nano": _extended(NANO, 48, 64, 256),
}

_BLOCK = "stages.{s}.blocks.{j}"
_LAST = "stages.{s}.blocks.1"


def _timm_keys(top: str) -> tuple[Key, ...]:
    """timm's names; ``top`` is where the last 1x1 convolution goes."""
    convs = {f"{_BLOCK}.expand": "conv1_1x1", f"{_BLOCK}.depthwise": "conv2_kxk", f"{_BLOCK}.project": "conv3_1x1"}
    convs |= {f"{_BLOCK}.local_conv": "conv_kxk", f"{_BLOCK}.proj_out": "conv_proj", f"{_BLOCK}.fusion": "conv_fusion"}
    return (
        Key("stem.bn", "stem.norm"),
        *(Key(f"stages.{{s}}.{{j}}.{theirs}.conv", f"{ours}.conv") for ours, theirs in convs.items()),
        *(Key(f"stages.{{s}}.{{j}}.{theirs}.bn", f"{ours}.norm") for ours, theirs in convs.items()),
        Key("stages.{s}.{j}.conv_1x1", f"{_BLOCK}.proj_in"),
        Key("stages.{s}.{j}.norm", f"{_BLOCK}.norm"),
        Key("stages.{s}.{j}.transformer.{k}", f"{_BLOCK}.blocks.{{k}}"),
        Key("stages.{s}.{j}.transformer.{k}.attn", f"{_BLOCK}.blocks.{{k}}.token_mixer"),
        Key("final_conv.conv", f"{top}.conv"),
        Key("final_conv.bn", f"{top}.norm"),
        Key("head.fc", "head"),
    )


def _transformers_keys(top: str) -> tuple[Key, ...]:
    """The names of transformers' ``MobileViTForImageClassification``."""
    stage = "mobilevit.encoder.layer.{s}"
    block, attention = f"{stage}.transformer.layer.{{k}}", f"{stage}.transformer.layer.{{k}}.attention"
    inner = f"{_LAST}.blocks.{{k}}"
    residual = {"expand_1x1": "expand", "conv_3x3": "depthwise", "reduce_1x1": "project"}
    convs = {"mobilevit.conv_stem": "stem", "mobilevit.conv_1x1_exp": top}
    convs |= {f"{stage}.layer.{{j}}.{theirs}": f"{_BLOCK}.{ours}" for theirs, ours in residual.items()}
    convs |= {
        f"{stage}.downsampling_layer.{theirs}": f"stages.{{s}}.blocks.0.{ours}" for theirs, ours in residual.items()
    }
    convs |= {f"{stage}.conv_kxk": f"{_LAST}.local_conv", f"{stage}.conv_projection": f"{_LAST}.proj_out"}
    convs |= {f"{stage}.fusion": f"{_LAST}.fusion"}
    return (
        *(Key(f"{theirs}.convolution", f"{ours}.conv") for theirs, ours in convs.items()),
        *(Key(f"{theirs}.normalization", f"{ours}.norm") for theirs, ours in convs.items()),
        Key(f"{stage}.conv_1x1.convolution", f"{_LAST}.proj_in"),
        Key(f"{stage}.layernorm", f"{_LAST}.norm"),
        Key(f"{block}.layernorm_before", f"{inner}.norm1"),
        *(
            Key(f"{attention}.attention.{name}", f"{inner}.token_mixer.qkv", (i, 3))
            for i, name in enumerate(("query", "key", "value"))
        ),
        Key(f"{attention}.output.dense", f"{inner}.token_mixer.proj"),
        Key(f"{block}.layernorm_after", f"{inner}.norm2"),
        Key(f"{block}.intermediate.dense", f"{inner}.mlp.fc1"),
        Key(f"{block}.output.dense", f"{inner}.mlp.fc2"),
        Key("classifier", "head"),
    )


_NOTES = {
    "transformers": "transformers' own image processor gives this network blue first; Vitrail's images have red first, "
    "so weights that were trained with blue first need their stem's kernel flipped"
}

FAMILY = Family(
    name="mobilevit",
    backbone=MobileViT,
    variants=VARIANTS,
    weights=WEIGHTS,
    checkpoint_keys={"timm": _timm_keys("final_conv"), "transformers": _transformers_keys("final_conv")},
    layout_notes=_NOTES,
    title="MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision Transformer",
    authors="Mehta and Rastegari",
    venue="ICLR 2022",
    arxiv="2110.02178",
    code="timm 1.0.31 mobilevit_* (Apache-2.0); transformers 5.23 (Apache-2.0)",
    ours={"mobilevit_nano": "narrower and with half the stride, for images of 32 to 64 pixels on a CPU"},
)

EX_FAMILY = Family(
    name="exmobilevit",
    backbone=ExMobileViT,
    variants=EX_VARIANTS,
    weights_elsewhere="the authors published none (https://github.com/EmPasLab/ExMobileVIT)",
    checkpoint_keys={
        "timm": _timm_keys("ex_shortcut.projections.2"),
        "transformers": _transformers_keys("ex_shortcut.projections.2"),
    },
    layout_notes=_NOTES,
    title="ExMobileViT: Lightweight Classifier Extension for Mobile Vision Transformer",
    authors="Yang et al.",
    venue="arXiv 2023",
    arxiv="2309.01310",
    code="body as mobilevit; head as the paper (EmPasLab/ExMobileVIT @ 761e05a has no licence and another body)",
    ours={
        "exmobilevit_xs_560": "exmobilevit_928's rule (the next stage's width, then the last map's) on mobilevit_xs",
        "exmobilevit_xxs_464": "the same on mobilevit_xxs",
        "exmobilevit_nano": "the same on mobilevit_nano, for images of 32 to 64 pixels on a CPU",
    },
)
