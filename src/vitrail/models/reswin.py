"""ReSwin: Swin's windows with logits that are averaged over depth.

Paper: Diko et al., "ReViT: Enhancing Vision Transformers Feature Diversity with Attention Residual Connections", 2024,
arXiv:2402.11301; on Liu et al., "Swin Transformer", ICCV 2021, arXiv:2103.14030.
Compatible with: ADiko1997/ReViT @ 2188c96, model/reswin.py (MIT text; README: research use). There alpha is a constant
0.5; files of a model that learned it (the authors' logs hint at one) need ``learnable_alpha=True``.

Memory: a window's logits are carried on; for 3 heads and 56 x 56 tokens in 7 x 7 windows, 0.46 M numbers an image.

Shapes: b images, c channels, h and w pixels or tokens a side; nh pairs (window, head) of t tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitrail.core.errors import ConfigError
from vitrail.core.types import FeatureInfo, ImageSize, Preprocessing
from vitrail.layers import LayerNorm2d, Mlp, ResidualWindowAttention, resize_rel_pos_bias
from vitrail.models.base import Backbone, BackboneConfig, drop_path_rates, make_classifier
from vitrail.models.checkpoint import Key
from vitrail.models.family import Family


@dataclass(frozen=True, kw_only=True)
class ReSwinConfig(BackboneConfig):
    """
    Attributes:
        embed_dims, depths, num_heads: width, number of blocks and heads of every stage.
        patch_size: pixels a side of a token of the first stage.
        window_size: tokens a side.
        alpha: weight of a block's own logits.
        learnable_alpha: train alpha, one number for the whole model, from that value on.
    """

    embed_dims: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    patch_size: int = 4
    window_size: int = 7
    mlp_ratio: float = 4.0
    alpha: float = 0.5
    learnable_alpha: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({len(self.embed_dims), len(self.depths), len(self.num_heads)}) != 1:
            raise ConfigError("embed_dims, depths and num_heads need one entry a stage")


class PatchMerging(nn.Module):
    """Four neighbours become one token, twice as wide."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_dim, eps=1e-5)
        self.reduction = nn.Linear(4 * in_dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h2 w2 d"]:
        corners = [x[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        return self.reduction(self.norm(torch.cat(corners, -1)))


class Block(nn.Module):
    """Swin block whose attention logits are mixed with those of the block before."""

    def __init__(self, config: ReSwinConfig, stage: int, shift_size: int, drop_path: float) -> None:
        super().__init__()
        dim = config.embed_dims[stage]
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.token_mixer = ResidualWindowAttention(dim, config.num_heads[stage], config.window_size, shift_size)
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(
        self, x: Float[Tensor, "b h w c"], carried: Tensor | None, alpha: Tensor | float, carry: bool
    ) -> tuple[Float[Tensor, "b h w c"], Float[Tensor, "b nh t t"] | None]:
        mixed, carried = self.token_mixer(self.norm1(x), carried, alpha, carry)
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.norm2(x))), carried


class Stem(nn.Module):
    """Patches to normed tokens."""

    def __init__(self, in_chans: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, patch_size, patch_size)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h2 w2 d"]:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Stage(nn.Module):
    """Fewer, wider tokens (not in the first stage), then blocks; the windows of every second one are shifted."""

    def __init__(self, config: ReSwinConfig, index: int, rates: list[float]) -> None:
        super().__init__()
        dims = config.embed_dims
        self.downsample = PatchMerging(dims[index - 1], dims[index]) if index else nn.Identity()
        shifts = [config.window_size // 2 * (i % 2) for i in range(len(rates))]
        self.blocks = nn.ModuleList(
            Block(config, index, shift, rate) for shift, rate in zip(shifts, rates, strict=True)
        )


class ReSwin(Backbone):
    """Four levels, at strides 4, 8, 16 and 32; every stage's sides must be multiples of the window."""

    config: ReSwinConfig
    preprocessing = Preprocessing(crop_fraction=0.91)

    def __init__(self, config: ReSwinConfig) -> None:
        super().__init__(config)
        strides = [config.patch_size * 2**i for i in range(len(config.depths))]
        self.size_divisor = strides[-1] * config.window_size
        self.check_image_size(*config.image_size)
        self.alpha = nn.Parameter(torch.full((1,), config.alpha)) if config.learnable_alpha else config.alpha
        self.stem = Stem(config.in_chans, config.embed_dims[0], config.patch_size)
        rates = iter(drop_path_rates(config.drop_path_rate, sum(config.depths)))
        self.stages = nn.ModuleList(
            Stage(config, i, [next(rates) for _ in range(depth)]) for i, depth in enumerate(config.depths)
        )
        self.num_features = config.embed_dims[-1]
        self.norm = LayerNorm2d(self.num_features, eps=1e-5)
        self.head = make_classifier(self.num_features, config.num_classes)
        self.feature_info = tuple(
            FeatureInfo(name=f"stages.{i}", channels=dim, stride=strides[i]) for i, dim in enumerate(config.embed_dims)
        )
        self.init_weights()

    def forward_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        x = self.stem(x)
        carried, todo = None, sum(self.config.depths)
        for stage in self.stages:
            assert isinstance(stage, Stage)
            x = stage.downsample(x)
            for block in stage.blocks:
                todo -= 1
                x, carried = self.run_block(block, x, carried, self.alpha, todo > 0)
            yield x.permute(0, 3, 1, 2)

    def final_norm(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.norm(x)

    def pool(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return x.mean((2, 3))

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith("rel_pos_bias")}

    def adapt_tensor(
        self, name: str, tensor: Tensor, shape: tuple[int, ...], image_size: ImageSize | None = None
    ) -> Tensor | None:
        if not name.endswith("rel_pos_bias") or tensor.ndim != 2 or tensor.shape[1] != shape[1]:
            return None
        return resize_rel_pos_bias(tensor, shape[0])


VARIANTS = {
    "reswin_t": ReSwinConfig(),
    "reswin_nano_patch2": ReSwinConfig(
        embed_dims=(32, 64, 128),
        depths=(2, 2, 2),
        num_heads=(1, 2, 4),
        patch_size=2,
        window_size=3,
        image_size=(48, 48),
    ),
}

CHECKPOINT_KEYS = {
    "adiko": (
        Key("patch_embed", "stem"),
        Key("layers.{s}.blocks.{i}", "stages.{s}.blocks.{i}"),
        Key("layers.{s}.blocks.{i}.attn", "stages.{s}.blocks.{i}.token_mixer"),
        Key(
            "layers.{s}.blocks.{i}.attn.relative_position_bias_table", "stages.{s}.blocks.{i}.token_mixer.rel_pos_bias"
        ),
        Key("layers.{s}.blocks.{i}.attn.relative_position_index", None),
        Key("layers.{s}.blocks.{i}.attn_mask", None),
        Key("layers.{s}.downsample", "stages.{s+1}.downsample"),
    ),
}

FAMILY = Family(
    name="reswin",
    backbone=ReSwin,
    variants=VARIANTS,
    weights_elsewhere="the authors link theirs on Google Drive (https://github.com/ADiko1997/ReViT)",
    checkpoint_keys=CHECKPOINT_KEYS,
    title="ReViT: Enhancing Vision Transformers Feature Diversity with Attention Residual Connections",
    authors="Diko et al.",
    venue="2024",
    arxiv="2402.11301",
    code="ADiko1997/ReViT @ 2188c96 (MIT text; README: research use)",
    ours={"reswin_nano_patch2": "2-pixel patches and 3x3 windows for 48-pixel images, small enough to train on a CPU"},
)
