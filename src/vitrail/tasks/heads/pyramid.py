"""Maps of growing stride for dense tasks, from families with stages and from plain ones."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.core.errors import ConfigError
from vitrail.core.types import FeatureInfo
from vitrail.models import Backbone

MOST_LEVELS = 4
SMALLEST_STRIDE = 2
"""A map at the full size of the image would cost more than the rest of the model."""


def conv_norm_act(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Sequential:
    """Convolution of unchanged size, BatchNorm, ReLU: what dense heads are made of; it folds into one."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def choose_levels(levels: Sequence[FeatureInfo], count: int = MOST_LEVELS) -> list[int]:
    """Indices of the last level of each stride, at most ``count`` of them, the coarsest ones."""
    last = {level.stride: index for index, level in enumerate(levels)}
    return [last[stride] for stride in sorted(last)][-count:]


class Pyramid(nn.Module):
    """Maps of a backbone at two or more strides, finest first.

    Families with stages give the last level of each stride. A plain one has a single stride s, and gets the simple
    feature pyramid of ViTDet (Li et al., ECCV 2022, arXiv:2203.16527): its last map, enlarged by transposed
    convolutions to s/4 and s/2 and reduced by pooling to 2s.

    Attributes:
        strides: stride of each map, ascending; halves and quarters of patches of 14 pixels are no whole numbers.
        channels: channels of each map.

    Raises:
        ConfigError: the backbone offers no maps.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        info = backbone.feature_info
        if not info:
            raise ConfigError(f"{type(backbone).__name__} has no feature maps; dense tasks need feature_info")
        self.indices = choose_levels(info)
        chosen = [info[index] for index in self.indices]
        self.strides: tuple[float, ...] = tuple(level.stride for level in chosen)
        self.channels = tuple(level.channels for level in chosen)
        self.resize: nn.ModuleList | None = None
        if len(chosen) == 1:
            self._build_simple(chosen[0])

    def _build_simple(self, level: FeatureInfo) -> None:
        width, stride = level.channels, level.stride
        half, quarter = width // 2, width // 4
        finest = nn.Sequential(
            nn.ConvTranspose2d(width, half, 2, 2),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, 2),
        )
        every = [
            (stride / 4, quarter, finest),
            (stride / 2, half, nn.ConvTranspose2d(width, half, 2, 2)),
            (stride, width, nn.Identity()),
            (2 * stride, width, nn.MaxPool2d(2)),
        ]
        kept = [one for one in every if one[0] >= SMALLEST_STRIDE]
        self.strides = tuple(stride for stride, _, _ in kept)
        self.channels = tuple(channels for _, channels, _ in kept)
        self.resize = nn.ModuleList(module for _, _, module in kept)

    def forward(self, backbone: Backbone, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Normalised images to maps (b, channels[i], about h / strides[i], about w / strides[i])."""
        maps: list[Tensor] = backbone.forward_intermediates(images, self.indices, norm=True, intermediates_only=True)
        return maps if self.resize is None else [module(maps[0]) for module in self.resize]


class FeaturePyramidNetwork(nn.Module):
    """Coarser maps are added to finer ones (FPN, Lin et al., CVPR 2017, arXiv:1612.03144).

    Args:
        channels: channels of each map, finest first.
        width: channels of every output.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(conv_norm_act(count, width, 1) for count in channels)
        self.smooth = nn.ModuleList(conv_norm_act(width, width) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (b, channels[i], h_i, w_i), finest first, to maps (b, width, h_i, w_i)."""
        out = [lateral(level) for lateral, level in zip(self.laterals, maps, strict=True)]
        for index in range(len(out) - 1, 0, -1):
            out[index - 1] = out[index - 1] + F.interpolate(out[index], size=out[index - 1].shape[-2:], mode="nearest")
        return [smooth(level) for smooth, level in zip(self.smooth, out, strict=True)]
