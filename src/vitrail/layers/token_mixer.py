"""All stateless token mixers by name, on maps, so that one can replace another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import UnknownNameError
from vitrail.core.import_code import load_installed
from vitrail.layers.attention import Attention
from vitrail.layers.axial_attention import AxialAttention
from vitrail.layers.local_global_local import GlobalSparseAttention, LocalAggregation
from vitrail.layers.max_sa import BlockAttention, GridAttention, MaxSA
from vitrail.layers.performer import PerformerAttention
from vitrail.layers.pooling import PoolingMixer
from vitrail.layers.window import WindowAttention

Layout = Literal["map", "channels_last", "tokens"]


@dataclass(frozen=True, kw_only=True)
class MixerOptions:
    """Arguments of mixers besides the width.

    Attributes:
        head_dim: width of an attention head.
        window_size: tokens a side of windows, blocks and grids.
        sr_ratio: one delegate out of r x r tokens (global sparse attention).
        pool_size: tokens a side of the pooled neighbourhood.
    """

    head_dim: int = 32
    window_size: int = 7
    sr_ratio: int = 2
    pool_size: int = 3


class MapMixer(nn.Module):
    """A mixer of any layout on maps (b, c, h, w).

    Args:
        mixer: takes and returns ``layout``.
        layout: "map" (b, c, h, w), "channels_last" (b, h, w, c) or "tokens" (b, n, c).
        divisor: the map's sides must be multiples of it.
    """

    def __init__(self, mixer: nn.Module, layout: Layout = "map", divisor: int = 1) -> None:
        super().__init__()
        self.mixer = mixer
        self.layout = layout
        self.divisor = divisor

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if self.layout == "map":
            return self.mixer(x)
        if self.layout == "channels_last":
            return self.mixer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.mixer(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (x.shape[2], x.shape[3]))


Build = Callable[[int, MixerOptions], MapMixer]

TOKEN_MIXERS: dict[str, Build] = {
    "identity": lambda dim, o: MapMixer(nn.Identity()),  # noqa: ARG005 (one signature for all)
    "pooling": lambda dim, o: MapMixer(PoolingMixer(o.pool_size)),  # noqa: ARG005
    "depthwise": lambda dim, o: MapMixer(nn.Conv2d(dim, dim, o.pool_size, padding=o.pool_size // 2, groups=dim)),
    "local_aggregation": lambda dim, o: MapMixer(LocalAggregation(dim)),  # noqa: ARG005
    "global_sparse": lambda dim, o: MapMixer(
        GlobalSparseAttention(dim, dim // o.head_dim, o.sr_ratio), "channels_last", o.sr_ratio
    ),
    "attention": lambda dim, o: MapMixer(Attention(dim, dim // o.head_dim), "tokens"),
    "axial": lambda dim, o: MapMixer(
        nn.Sequential(AxialAttention(dim, dim // o.head_dim, "row"), AxialAttention(dim, dim // o.head_dim, "column")),
        "channels_last",
    ),
    "performer": lambda dim, o: MapMixer(PerformerAttention(dim, dim), "tokens"),  # noqa: ARG005
    "window": lambda dim, o: MapMixer(
        WindowAttention(dim, dim // o.head_dim, o.window_size, rel_pos_bias=True), "channels_last"
    ),
    "block": lambda dim, o: MapMixer(BlockAttention(dim, o.window_size, o.head_dim), "channels_last", o.window_size),
    "grid": lambda dim, o: MapMixer(GridAttention(dim, o.window_size, o.head_dim), "channels_last", o.window_size),
    "max_sa": lambda dim, o: MapMixer(MaxSA(dim, o.window_size, head_dim=o.head_dim), "channels_last", o.window_size),
}


def make_token_mixer(name: str, dim: int, options: MixerOptions | None = None) -> MapMixer:
    """A token mixer of width ``dim`` on maps.

    Raises:
        UnknownNameError: no such mixer; the message has all names.
    """
    if name not in TOKEN_MIXERS:
        load_installed()
    if name not in TOKEN_MIXERS:
        raise UnknownNameError(f"unknown token mixer '{name}'; known: {', '.join(TOKEN_MIXERS)}")
    return TOKEN_MIXERS[name](dim, options or MixerOptions())
