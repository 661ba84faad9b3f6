"""Multi-axis self-attention, Max-SA (Tu et al., MaxViT, ECCV 2022, arXiv:2204.01697, section 3.2).

The cost of attention over a whole map grows with the square of its size. Max-SA splits the map in two ways into groups
of a fixed number of tokens: windows of neighbours for *block* attention (local), tokens spread evenly over the map for
*grid* attention (global). In sequence they connect all tokens at linear cost.

Shapes: b images, h x w tokens of width c.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import CheckpointError, ConfigError, ImageSizeError
from vitrail.core.types import ImageSize
from vitrail.layers.attention import merge_heads, split_qkv
from vitrail.layers.places import Places, cell_centres

Partition = Literal["block", "grid"]


def partition_map(x: Float[Tensor, "b h w c"], size: ImageSize, partition: Partition) -> Float[Tensor, "groups n c"]:
    """Cut a map into groups of ``size[0] * size[1]`` tokens, row by row.

    Args:
        x: the map; its sides must be multiples of ``size``.
        size: tokens a side of a group.
        partition: "block": a group is a window of neighbours. "grid": a group is every (h / size[0])-th row of every
            (w / size[1])-th column, spread over the whole map.
    """
    rows, columns, width = x.shape[1] // size[0], x.shape[2] // size[1], x.shape[3]
    if partition == "block":
        cut = x.reshape(-1, rows, size[0], columns, size[1], width).permute(0, 1, 3, 2, 4, 5)
    else:
        cut = x.reshape(-1, size[0], rows, size[1], columns, width).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(-1, size[0] * size[1], width)


def merge_map(
    groups: Float[Tensor, "groups n c"], size: ImageSize, partition: Partition, map_size: ImageSize
) -> Float[Tensor, "b h w c"]:
    """The inverse of :func:`partition_map` for a map of ``map_size`` tokens."""
    height, width = map_size
    rows, columns = height // size[0], width // size[1]
    cut = groups.reshape(-1, rows, columns, size[0], size[1], groups.shape[-1])
    order = (0, 1, 3, 2, 4, 5) if partition == "block" else (0, 3, 1, 4, 2, 5)
    return cut.permute(order).reshape(-1, height, width, groups.shape[-1])


def relative_bias(table: Float[Tensor, "heads v u"], size: ImageSize) -> Float[Tensor, "heads n m"]:
    """The bias that each head adds to the attention logit of a query and a key, by the key's offset from the query.

    ``bias[head, q, k] = table[head, key_row - query_row + size[0] - 1, key_column - query_column + size[1] - 1]``,
    read off overlapping windows of the table rather than by an index, so that the model keeps no index buffer.

    Args:
        table: one entry for each head and offset, (heads, 2 size[0] - 1, 2 size[1] - 1).
        size: tokens a side of a group.
    """
    windows = table.unfold(1, size[0], 1).unfold(2, size[1], 1).flip(1, 2)
    return windows.flatten(1, 2).flatten(2, 3)


def resize_bias_table(table: Float[Tensor, "heads v u"], new_size: ImageSize) -> Float[Tensor, "heads v2 u2"]:
    """Resize a bias table for another group size by the authors' rule: bilinear, half-pixel centres, no antialiasing.

    Args:
        table: (heads, 2 P - 1, 2 P - 1).
        new_size: tokens a side of the new groups.

    Raises:
        CheckpointError: the sides of the table are not odd.
    """
    if not table.shape[1] % 2 or not table.shape[2] % 2:
        raise CheckpointError(
            f"the table is for {table.shape[1]}x{table.shape[2]} offsets, and groups of P tokens a side have 2 P - 1; "
            "only tables of that form can be used"
        )
    entries = (2 * new_size[0] - 1, 2 * new_size[1] - 1)
    resized = F.interpolate(table.double()[None], entries, mode="bilinear", align_corners=False, antialias=False)
    return resized[0].to(table.dtype)


class PartitionAttention(nn.Module):
    """Self-attention inside each group of tokens, with a learned bias for every relative position.

    MACs for n = h w tokens and groups of p tokens: 4 n c^2 (projections) + 2 n p c (attention).

    Args:
        dim: width; a multiple of ``head_dim``.
        size: tokens a side of a group, one number for a square.
        partition: "block" or "grid", see :func:`partition_map`.
        head_dim: width of a head.
    """

    def __init__(self, dim: int, size: int | ImageSize, partition: Partition, head_dim: int = 32) -> None:
        super().__init__()
        if dim % head_dim:
            raise ConfigError(f"width {dim} is not a multiple of head_dim={head_dim}")
        self.size: ImageSize = (size, size) if isinstance(size, int) else size
        self.partition: Partition = partition
        self.num_heads = dim // head_dim
        self.qkv = nn.Linear(dim, 3 * dim)
        self.bias_table = nn.Parameter(torch.empty(self.num_heads, 2 * self.size[0] - 1, 2 * self.size[1] - 1))
        self.proj = nn.Linear(dim, dim)
        nn.init.normal_(self.bias_table, std=0.02)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        """
        Raises:
            ImageSizeError: the map's sides are not multiples of the group's.
        """
        map_size = (x.shape[1], x.shape[2])
        if map_size[0] % self.size[0] or map_size[1] % self.size[1]:
            raise ImageSizeError(
                f"a map of {map_size[0]}x{map_size[1]} tokens cannot be cut into {self.partition}s of "
                f"{self.size[0]}x{self.size[1]}; its sides must be multiples of these"
            )
        groups = partition_map(x, self.size, self.partition)
        q, k, v = split_qkv(self.qkv(groups), self.num_heads)
        bias = relative_bias(self.bias_table, self.size).to(q.dtype)
        out = self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))
        return merge_map(out, self.size, self.partition, map_size)

    def token_places(self, x: Float[Tensor, "b h w c"], image_size: ImageSize) -> Places:
        """Blocks or grids, see :class:`~vitrail.layers.places.HasPlaces`."""
        centres = cell_centres((x.shape[1], x.shape[2]), image_size)
        groups = partition_map(centres[None], self.size, self.partition)
        return Places(self.partition, groups, groups)


class BlockAttention(PartitionAttention):
    """Local: attention inside windows of neighbours. MACs of :class:`PartitionAttention` with p = window_size^2."""

    def __init__(self, dim: int, window_size: int | ImageSize = 7, head_dim: int = 32) -> None:
        super().__init__(dim, window_size, "block", head_dim)


class GridAttention(PartitionAttention):
    """Global: attention among tokens spread over the map. MACs of :class:`PartitionAttention` with p = grid_size^2."""

    def __init__(self, dim: int, grid_size: int | ImageSize = 7, head_dim: int = 32) -> None:
        super().__init__(dim, grid_size, "grid", head_dim)


class MaxSA(nn.Module):
    """Block attention, then grid attention: they connect all tokens, at a cost linear in the size of the map.

    MACs for n = h w tokens: 8 n c^2 + 2 n (window_size^2 + grid_size^2) c. It has no norms,
    residuals or MLPs, so that it can replace another attention.
    """

    def __init__(
        self, dim: int, window_size: int | ImageSize = 7, grid_size: int | ImageSize | None = None, head_dim: int = 32
    ) -> None:
        super().__init__()
        self.block_attention = BlockAttention(dim, window_size, head_dim)
        self.grid_attention = GridAttention(dim, window_size if grid_size is None else grid_size, head_dim)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        return self.grid_attention(self.block_attention(x))
