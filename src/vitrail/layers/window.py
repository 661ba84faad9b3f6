"""Window attention (Liu et al., "Swin Transformer", ICCV 2021, arXiv:2103.14030; ViTAEv2, arXiv:2202.10108).

Tokens attend inside square windows, so the cost grows linearly with the image. Shifted windows and a learned bias for
each relative position are from Swin, zero-padding to whole windows on both sides from ViTAEv2.
"""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitrail.core.errors import CheckpointError, ConfigError
from vitrail.core.types import ImageSize
from vitrail.layers.attention import masked_attention
from vitrail.layers.places import Places, cell_centres

SHIFT_MASK = -100.0
"""Added to the logits of tokens that are neighbours only in the rolled map; finite, as in the authors' code."""


class WindowAttention(nn.Module):
    """Every token attends to the tokens of its window.

    Maps whose sides are no multiples of the window are zero-padded, the odd row at the bottom and the odd column on the
    right. Padded tokens are not masked: the projection's bias is their query, key and value. ``shift_size`` moves the
    windows by that many tokens (by Swin's rule, not where the map is a single window high or wide).

    MACs for n tokens (padding included), widths c -> d, windows of m x m: n (3 c d + d^2) + 2 n m^2 d.

    Args:
        dim, num_heads: width of the input, and number of heads of the output.
        window_size: tokens a side.
        out_dim: width of the output; ``dim`` by default.
        shift_size: tokens by which the windows are moved, 0 to ``window_size - 1``.
        rel_pos_bias: learn a bias for each head and each of the (2 window_size - 1)^2 relative positions.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        *,
        out_dim: int | None = None,
        shift_size: int = 0,
        qkv_bias: bool = True,
        rel_pos_bias: bool = False,
    ) -> None:
        super().__init__()
        out_dim = dim if out_dim is None else out_dim
        if out_dim % num_heads:
            raise ConfigError(f"width {out_dim} cannot be shared by {num_heads} heads; choose a divisor of {out_dim}")
        if not 0 <= shift_size < window_size:
            raise ConfigError(f"shift_size={shift_size} is outside 0 to window_size-1={window_size - 1}")
        self.num_heads = num_heads
        self.window_size = window_size
        self.shift_size = shift_size
        self.qkv = nn.Linear(dim, 3 * out_dim, bias=qkv_bias)
        self.proj = nn.Linear(out_dim, out_dim)
        self.rel_pos_bias: nn.Parameter | None = None
        if rel_pos_bias:
            self.rel_pos_bias = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
            nn.init.trunc_normal_(self.rel_pos_bias, std=0.02)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w d"]:
        windows, shift = self.split(x)
        q, k, v = self.project(windows)
        bias, mask = self.bias(windows.shape[1]), self.mask(x.shape[1], x.shape[2], shift)
        present = [part for part in (bias, mask) if part is not None]
        extra = sum(present[1:], start=present[0]).to(q.dtype) if present else None
        return self.join(masked_attention(q, k, v, extra), x.shape[1], x.shape[2], shift)

    def token_places(self, x: Float[Tensor, "b h w c"], image_size: ImageSize) -> Places:
        """Windows, see :class:`~vitrail.layers.places.HasPlaces`."""
        centres = cell_centres((x.shape[1], x.shape[2]), image_size)
        marked = torch.cat([centres, torch.ones_like(centres[..., :1])], -1)  # padding brings zeros
        windows = self.split(marked[None])[0][0]
        centres = windows[..., :2].masked_fill(windows[..., 2:] == 0, torch.nan)
        return Places("windows", centres, centres)

    def split(self, x: Float[Tensor, "b h w c"]) -> tuple[Float[Tensor, "b n t c"], int]:
        """The padded, rolled map as n windows of t tokens, and the number of tokens that it was rolled by."""
        height, width = x.shape[1:3]
        (top, bottom), (left, right) = (symmetric_padding(side, self.window_size) for side in (height, width))
        if top + bottom + left + right:
            x = F.pad(x, (0, 0, left, right, top, bottom))
        shift = self.shift_size if min(x.shape[1:3]) > self.window_size else 0
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        return partition_windows(x, self.window_size), shift

    def join(self, out: Float[Tensor, "b nh t e"], height: int, width: int, shift: int) -> Float[Tensor, "b h w d"]:
        """The inverse of :meth:`split` and :meth:`project`: heads merged and projected, roll and padding undone."""
        (top, bottom), (left, right) = (symmetric_padding(side, self.window_size) for side in (height, width))
        padded = (height + top + bottom, width + left + right)
        out = self.proj(out.unflatten(1, (-1, self.num_heads)).transpose(2, 3).flatten(3))
        x = merge_windows(out, self.window_size, padded)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return x[:, top : top + height, left : left + width]

    def project(self, windows: Float[Tensor, "b n t c"]) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, each (b, n * heads, t, head_dim); heads of one window lie together."""
        qkv = self.qkv(windows).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
        q, k, v = qkv.unbind(0)
        return q, k, v

    def bias(self, num_windows: int) -> Float[Tensor, "nh t t"] | None:
        """The learned bias of every head of every window, or None where there is none."""
        if self.rel_pos_bias is None:
            return None
        index = relative_position_index(self.window_size, self.rel_pos_bias.device)
        bias = self.rel_pos_bias[index].permute(2, 0, 1)
        return bias.expand(num_windows, -1, -1, -1).flatten(0, 1)

    def mask(self, height: int, width: int, shift: int) -> Float[Tensor, "nh t t"] | None:
        """The mask between tokens that only the roll brought together, for every head of every window."""
        if not shift:
            return None
        rows, columns = (side + sum(symmetric_padding(side, self.window_size)) for side in (height, width))
        mask = shift_mask(rows, columns, self.window_size, shift, self.proj.weight.device)
        return mask[:, None].expand(-1, self.num_heads, -1, -1).flatten(0, 1).to(self.proj.weight.dtype)


def symmetric_padding(side: int, window_size: int) -> tuple[int, int]:
    """Number of zeros before and after that make ``side`` a multiple of the window; an odd one comes after."""
    missing = -side % window_size
    return missing // 2, missing - missing // 2


def partition_windows(x: Float[Tensor, "b h w c"], window_size: int) -> Float[Tensor, "b n t c"]:
    """A map whose sides are multiples of the window as windows, row by row, tokens inside row by row."""
    rows, columns = x.shape[1] // window_size, x.shape[2] // window_size
    x = x.unflatten(2, (columns, window_size)).unflatten(1, (rows, window_size))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def merge_windows(
    windows: Float[Tensor, "b n t c"], window_size: int, map_size: tuple[int, int]
) -> Float[Tensor, "b h w c"]:
    """The inverse of :func:`partition_windows`."""
    rows, columns = map_size[0] // window_size, map_size[1] // window_size
    x = windows.unflatten(2, (window_size, window_size)).unflatten(1, (rows, columns))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def relative_position_index(window_size: int, device: torch.device | None = None) -> Int[Tensor, "t t"]:
    """Row of the bias table for every pair (query token, key token) of a window.

    It is computed on use instead of stored as a buffer. It takes microseconds, and a model that was built on the meta
    device needs nothing but its weights.
    """
    side = torch.arange(window_size, device=device)
    distance = side[:, None] - side[None, :] + window_size - 1
    index = distance[:, None, :, None] * (2 * window_size - 1) + distance[None, :, None, :]
    return index.flatten(2, 3).flatten(0, 1)


def shift_mask(
    height: int, width: int, window_size: int, shift: int, device: torch.device | None = None
) -> Float[Tensor, "n t t"]:
    """0 between tokens of a window that are neighbours in the unrolled map, -100 between the others."""
    regions = []
    for side in (height, width):
        place = torch.arange(side, device=device)
        regions.append((place >= side - window_size).long() + (place >= side - shift).long())
    region = (3 * regions[0][:, None] + regions[1][None, :]).float()
    windows = partition_windows(region[None, :, :, None], window_size)[0, :, :, 0]
    return (windows[:, None, :] != windows[:, :, None]).float() * SHIFT_MASK


def resize_rel_pos_bias(table: Float[Tensor, "m heads"], new_size: int) -> Float[Tensor, "n heads"]:
    """A bias table for windows of another size: bicubic, without antialiasing, as in Swin's code.

    Args:
        table: (2 window_size - 1)^2 rows.
        new_size: number of rows of the result, a square too.

    Raises:
        CheckpointError: the rows of the table are not those of a square window.
    """
    old_side, new_side = isqrt(table.shape[0]), isqrt(new_size)
    if old_side**2 != table.shape[0] or old_side % 2 == 0:
        raise CheckpointError(
            f"the table has {table.shape[0]} rows, and that of a square window has (2 window_size - 1)^2; "
            "only weights of square windows can be used"
        )
    if old_side == new_side:
        return table
    grid = table.float().T.unflatten(1, (old_side, old_side))[None]
    grid = F.interpolate(grid, (new_side, new_side), mode="bicubic")
    return grid[0].flatten(1).T.to(table.dtype)
