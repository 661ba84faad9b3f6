"""MetaFormer: is it a transformer's structure that works, or its attention? PoolFormer mixes tokens by pooling alone.

Paper: Yu et al., "MetaFormer Is Actually What You Need for Vision", CVPR 2022, arXiv:2111.11418.
Compatible with: sail-sg/poolformer @ a075575 (Apache-2.0) and timm 1.0.31 `poolformer_*` (Apache-2.0), whose heads
differ: the authors (and transformers) norm the whole map before averaging it, timm averages first. The published
weights were trained with the authors' head. The layout of a weights file decides the head, unless ``head`` is given.

The authors trained s12, s24, s36, m36 and m48 with drop_path_rate 0.1, 0.1, 0.2, 0.3 and 0.4.

Shapes: b images, c channels, h and w pixels or tokens a side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import lcm, prod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitrail.core.errors import ConfigError
from vitrail.core.registered import find_registration
from vitrail.core.types import FeatureInfo, Preprocessing
from vitrail.layers import ConvMlp, MixerOptions, PoolingMixer, build_mixer, check_mixer, make_token_mixer
from vitrail.models.base import Backbone, BackboneConfig, drop_path_rates, make_classifier
from vitrail.models.checkpoint import Key
from vitrail.models.family import Family
from vitrail.models.pretrained import PretrainedWeights

Mixer = str | Callable[[int], nn.Module]
"""A name of :data:`~vitrail.layers.TOKEN_MIXERS`, or a function from the width to a module on maps (b, c, h, w)."""


@dataclass(frozen=True, kw_only=True)
class MetaFormerConfig(BackboneConfig):
    """
    Attributes:
        embed_dims, depths: width and number of blocks of every stage.
        token_mixer: one mixer for all stages, or one for each stage; see :data:`Mixer`.
        head: order of norm and mean before the classifier, see the top of this file.
        layer_scale_init: initial scale of every residual branch.
        strides: stride of the convolution that opens each stage.
        stem_kernel, stem_padding: kernel and padding of the first convolution; the others are 3x3.
        head_dim, window_size, sr_ratio, pool_size: arguments of the mixers that have them.
    """

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    token_mixer: Mixer | Sequence[Mixer] = "pooling"
    head: Literal["authors", "timm"] = "authors"
    layer_scale_init: float = 1e-5
    mlp_ratio: float = 4.0
    strides: tuple[int, ...] = (4, 2, 2, 2)
    stem_kernel: int = 7
    stem_padding: int = 2
    head_dim: int = 32
    window_size: int = 7
    sr_ratio: int = 2
    pool_size: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.embed_dims) == len(self.depths) == len(self.strides) == len(self.token_mixers):
            raise ConfigError("embed_dims, depths, strides and token_mixer need one entry a stage")
        if self.head not in ("authors", "timm"):
            raise ConfigError(f"head='{self.head}' is unknown; choose 'authors' or 'timm'")
        if any(dim % self.head_dim for dim in self.embed_dims):
            raise ConfigError(f"embed_dims={self.embed_dims} are not all multiples of head_dim={self.head_dim}")

    @property
    def token_mixers(self) -> tuple[Mixer, ...]:
        """One mixer for each stage."""
        if isinstance(self.token_mixer, str) or callable(self.token_mixer):
            return (self.token_mixer,) * len(self.embed_dims)
        return tuple(self.token_mixer)

    def make_mixer(self, stage: int) -> nn.Module:
        """A new token mixer for a block of that stage."""
        mixer, dim = self.token_mixers[stage], self.embed_dims[stage]
        options = MixerOptions(
            head_dim=self.head_dim, window_size=self.window_size, sr_ratio=self.sr_ratio, pool_size=self.pool_size
        )
        if not isinstance(mixer, str):
            return build_mixer(mixer, mixer_name(mixer), dim)
        return make_token_mixer(mixer, dim, options)

    def make_mixers(self, stage: int, count: int) -> list[nn.Module]:
        """New token mixers for the blocks of a stage.

        Raises:
            ConfigError: a mixer of a user's own cannot be built, or changes the shape of a map.
        """
        mixers = [self.make_mixer(stage) for _ in range(count)]
        name = mixer_name(self.token_mixers[stage])
        if mixers and (callable(self.token_mixers[stage]) or find_registration("token mixer", name)):
            stride, divisor = prod(self.strides[: stage + 1]), getattr(mixers[0], "divisor", 1)
            height, width = (max(side // (stride * divisor), 1) * divisor for side in self.image_size)
            check_mixer(mixers[0], name, self.embed_dims[stage], (height, width))
        return mixers


def mixer_name(mixer: Mixer) -> str:
    """The name of a token mixer, that of the class or function if it has none of its own."""
    return mixer if isinstance(mixer, str) else getattr(mixer, "__name__", type(mixer).__name__)


class Block(nn.Module):
    """The MetaFormer: tokens are mixed, then channels, each behind a norm over the whole map and scaled per channel."""

    def __init__(self, token_mixer: nn.Module, dim: int, config: MetaFormerConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(1, dim)
        self.token_mixer = token_mixer
        self.layer_scale1: nn.Parameter | None = nn.Parameter(torch.full((dim,), config.layer_scale_init))
        self.norm2 = nn.GroupNorm(1, dim)
        self.mlp = ConvMlp(dim, int(dim * config.mlp_ratio))
        self.layer_scale2: nn.Parameter | None = nn.Parameter(torch.full((dim,), config.layer_scale_init))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        x = x + self.drop_path(_scaled(self.token_mixer(self.norm1(x)), self.layer_scale1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.layer_scale2))

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the scales into the weights before them; pooling works channel by channel, so that they pass it."""
        if self.layer_scale2 is not None:
            self.mlp.fc2.weight.mul_(self.layer_scale2.view(-1, 1, 1, 1))
            if self.mlp.fc2.bias is not None:
                self.mlp.fc2.bias.mul_(self.layer_scale2)
            self.layer_scale2 = None
        if self.layer_scale1 is not None and isinstance(getattr(self.token_mixer, "mixer", None), PoolingMixer):
            self.norm1.weight.mul_(self.layer_scale1)
            self.norm1.bias.mul_(self.layer_scale1)
            self.layer_scale1 = None


def _scaled(x: Float[Tensor, "b c h w"], scale: Tensor | None) -> Float[Tensor, "b c h w"]:
    return x if scale is None else scale.view(-1, 1, 1) * x


class Stage(nn.Module):
    """Fewer, wider tokens (in the first stage: patches), then blocks."""

    def __init__(self, config: MetaFormerConfig, index: int, rates: list[float]) -> None:
        super().__init__()
        dim = config.embed_dims[index]
        self.downsample: nn.Module = nn.Identity()
        if index:
            self.downsample = nn.Conv2d(config.embed_dims[index - 1], dim, 3, config.strides[index], 1)
        mixers = config.make_mixers(index, len(rates))
        self.blocks = nn.ModuleList(Block(mixer, dim, config, rate) for mixer, rate in zip(mixers, rates, strict=True))
        self.divisor = lcm(*(getattr(mixer, "divisor", 1) for mixer in mixers))


class MetaFormer(Backbone):
    """Four levels at strides 4, 8, 16 and 32; any image of whole 4x4 patches, unless a token mixer needs more.

    ``create_model("poolformer_s12", token_mixer="attention")`` keeps the structure and changes the mixer, and
    ``token_mixer=("pooling", "pooling", "attention", "attention")`` gives each stage its own.
    """

    config: MetaFormerConfig
    preprocessing = Preprocessing(crop_fraction=0.9)

    def __init__(self, config: MetaFormerConfig) -> None:
        super().__init__(config)
        strides = [prod(config.strides[: i + 1]) for i in range(len(config.strides))]
        rates = iter(drop_path_rates(config.drop_path_rate, sum(config.depths)))
        self.stem = nn.Conv2d(
            config.in_chans, config.embed_dims[0], config.stem_kernel, config.strides[0], config.stem_padding
        )
        stages = [Stage(config, i, [next(rates) for _ in range(depth)]) for i, depth in enumerate(config.depths)]
        self.stages = nn.ModuleList(stages)
        self.num_features = config.embed_dims[-1]
        self.norm: nn.Module = nn.GroupNorm(1, self.num_features)
        if config.head == "timm":
            self.norm = nn.LayerNorm(self.num_features, eps=1e-6)
        self.head = make_classifier(self.num_features, config.num_classes)
        self.feature_info = tuple(
            FeatureInfo(name=f"stages.{i}", channels=dim, stride=strides[i]) for i, dim in enumerate(config.embed_dims)
        )
        # Whole patches; after them convolutions and pooling round up, and other mixers may need more.
        divided = [stride * stage.divisor for stage, stride in zip(stages, strides, strict=True) if stage.divisor > 1]
        self.size_divisor = lcm(strides[0], *divided)
        self.check_image_size(*config.image_size)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        for module in self.modules():
            if isinstance(module, ConvMlp):
                for conv in (module.fc1, module.fc2):
                    nn.init.trunc_normal_(conv.weight, std=0.02)
                    if conv.bias is not None:
                        nn.init.zeros_(conv.bias)

    def forward_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        x = self.stem(x)
        for stage in self.stages:
            assert isinstance(stage, Stage)
            x = stage.downsample(x)
            for block in stage.blocks:
                x = self.run_block(block, x)
            yield x

    def final_norm(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.norm(x) if self.config.head == "authors" else x

    def pool(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        x = x.mean((2, 3))
        return x if self.config.head == "authors" else self.norm(x)


S12 = MetaFormerConfig(embed_dims=(64, 128, 320, 512), depths=(2, 2, 6, 2))
M36 = MetaFormerConfig(embed_dims=(96, 192, 384, 768), depths=(6, 6, 18, 6), layer_scale_init=1e-6)

VARIANTS = {
    "poolformer_s12": S12,
    "poolformer_s24": replace(S12, depths=(4, 4, 12, 4)),
    "poolformer_s36": replace(S12, depths=(6, 6, 18, 6), layer_scale_init=1e-6),
    "poolformer_m36": M36,
    "poolformer_m48": replace(M36, depths=(8, 8, 24, 8)),
    "poolformer_nano": MetaFormerConfig(
        embed_dims=(32, 64, 128, 192),
        depths=(1, 1, 3, 1),
        strides=(2, 2, 2, 2),
        stem_kernel=3,
        stem_padding=1,
        layer_scale_init=0.1,
        image_size=(48, 48),
    ),
}


def _weights(name: str, top1: float) -> PretrainedWeights:
    return PretrainedWeights(
        hub_id=f"timm/{name}.sail_in1k",
        tag="sail_in1k",
        image_size=(224, 224),
        preprocessing=Preprocessing(crop_fraction=0.95 if "_m" in name else 0.9),
        top1=top1,
        source="the paper, with the authors' head",
    )


_TOP1 = {"s12": 77.2, "s24": 80.3, "s36": 81.4, "m36": 82.1, "m48": 82.5}
WEIGHTS = {f"poolformer_{size}": (_weights(f"poolformer_{size}", top1),) for size, top1 in _TOP1.items()}

_BLOCK = "stages.{s}.blocks.{j}"

CHECKPOINT_KEYS = {
    "timm": (
        Key("stem.conv", "stem"),
        Key("stages.{s}.downsample.conv", "stages.{s}.downsample"),
        Key(f"{_BLOCK}.layer_scale1.scale", f"{_BLOCK}.layer_scale1"),
        Key(f"{_BLOCK}.layer_scale2.scale", f"{_BLOCK}.layer_scale2"),
        Key("head.norm", "norm"),
        Key("head.fc", "head"),
    ),
    "sail-sg": (
        Key("patch_embed.proj", "stem"),
        # The authors' list alternates stages and the convolutions between them.
        *(Key(f"network.{2 * s}.{{j}}", f"stages.{s}.blocks.{{j}}") for s in range(4)),
        *(
            Key(f"network.{2 * s}.{{j}}.layer_scale_{n}", f"stages.{s}.blocks.{{j}}.layer_scale{n}")
            for s in range(4)
            for n in (1, 2)
        ),
        *(Key(f"network.{2 * s + 1}.proj", f"stages.{s + 1}.downsample") for s in range(3)),
    ),
}

FAMILY = Family(
    name="poolformer",
    backbone=MetaFormer,
    variants=VARIANTS,
    weights=WEIGHTS,
    checkpoint_keys=CHECKPOINT_KEYS,
    layout_fields={"timm": {"head": "timm"}, "sail-sg": {"head": "authors"}},
    title="MetaFormer Is Actually What You Need for Vision",
    authors="Yu et al.",
    venue="CVPR 2022",
    arxiv="2111.11418",
    code="sail-sg/poolformer @ a075575 (Apache-2.0); timm 1.0.31 poolformer_* (Apache-2.0)",
    ours={"poolformer_nano": "narrower and with half the stride, for images of 32 to 64 pixels on a CPU"},
)
