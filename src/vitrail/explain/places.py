"""Where the tokens of an attention call are in the image.

Windows, grids, delegates and pooled keys all come from a map. What a module does to its map is done here to a map of
coordinates, by the module's own functions, so that a measure need not know which attention it looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.core.types import ImageSize
from vitrail.layers.attention import MapAttention
from vitrail.layers.axial_attention import AxialAttention
from vitrail.layers.local_global_local import GlobalSparseAttention
from vitrail.layers.max_sa import PartitionAttention, partition_map
from vitrail.layers.mobilevit import MobileViTBlock, unfold_patches
from vitrail.layers.residual_attention import PooledResidualAttention
from vitrail.layers.vitae_cells import ValueSkipAttention
from vitrail.layers.window import WindowAttention


@dataclass(frozen=True)
class Places:
    """Centres of tokens in pixels of the image.

    Attributes:
        layout: "tokens", "map", "windows", "block", "grid", "row", "column", "delegates", "patches" or "pooled".
        queries, keys: (groups, n, 2), row and column; NaN for what has no place (class token, padding). A group is what
            attends among itself: a window, a row, or all tokens.
    """

    layout: str
    queries: Tensor
    keys: Tensor


def coordinates(grid: ImageSize, image_size: ImageSize) -> Tensor:
    """Centres of the cells of a grid that covers the image, in pixels: (rows, columns, 2)."""
    rows, columns = ((torch.arange(count) + 0.5) * (side / count) for count, side in zip(grid, image_size, strict=True))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)


def token_grid(num_tokens: int, image_size: ImageSize, prefixes: Sequence[int]) -> tuple[int, ImageSize] | None:
    """Prefix tokens and (rows, columns) of a sequence: the first of ``prefixes`` that leaves the image's shape."""
    height, width = image_size
    for prefix in prefixes:
        cells = num_tokens - prefix
        rows = round((max(cells, 0) * height / width) ** 0.5)
        if rows and cells % rows == 0 and rows * width == (cells // rows) * height:
            return prefix, (rows, cells // rows)
    return None


def find_places(
    modules: Sequence[tuple[nn.Module, Any]],
    shape: tuple[int, int, int],
    image_size: ImageSize,
    prefixes: Sequence[int],
) -> Places | None:
    """The places of an attention call, or None where they cannot be told.

    Args:
        modules: the modules that are being called and their first arguments, the outermost first.
        shape: (groups, queries, keys) of the call.
        image_size: (height, width) in pixels.
        prefixes: how many tokens may come before the patches, the likeliest first.
    """
    for module, x in reversed(modules):
        for kind, rule in _RULES.items():
            if isinstance(module, kind) and isinstance(x, Tensor):
                places = rule(module, x, image_size)
                return places if (places.queries.shape[0], places.queries.shape[1]) == shape[:2] else None
    groups, queries, keys = shape
    found = token_grid(queries, image_size, prefixes)
    if groups != 1 or queries != keys or found is None:
        return None
    prefix, grid = found
    nowhere = torch.full((prefix, 2), torch.nan)
    centres = torch.cat([nowhere, coordinates(grid, image_size).flatten(0, 1)])[None]
    return Places("tokens", centres, centres)


def _partition(module: PartitionAttention, x: Tensor, image_size: ImageSize) -> Places:
    groups = partition_map(coordinates((x.shape[1], x.shape[2]), image_size)[None], module.size, module.partition)
    return Places(module.partition, groups, groups)


def _windows(module: WindowAttention, x: Tensor, image_size: ImageSize) -> Places:
    centres = coordinates((x.shape[1], x.shape[2]), image_size)
    marked = torch.cat([centres, torch.ones_like(centres[..., :1])], -1)  # padding brings zeros
    windows = module.split(marked[None])[0][0]
    centres = windows[..., :2].masked_fill(windows[..., 2:] == 0, torch.nan)
    return Places("windows", centres, centres)


def _axial(module: AxialAttention, x: Tensor, image_size: ImageSize) -> Places:
    centres = coordinates((x.shape[1], x.shape[2]), image_size)
    centres = centres.transpose(0, 1) if module.axis == "column" else centres
    return Places(module.axis, centres, centres)


def _delegates(module: GlobalSparseAttention, x: Tensor, image_size: ImageSize) -> Places:
    centres = coordinates((x.shape[1], x.shape[2]), image_size)
    centres = centres[:: module.sr_ratio, :: module.sr_ratio].flatten(0, 1)[None]
    return Places("delegates" if module.sr_ratio > 1 else "map", centres, centres)


def _patches(module: MobileViTBlock, x: Tensor, image_size: ImageSize) -> Places:
    even = (x.shape[2] + x.shape[2] % module.patch_size, x.shape[3] + x.shape[3] % module.patch_size)
    centres = unfold_patches(coordinates(even, image_size).permute(2, 0, 1)[None], module.patch_size)
    return Places("patches", centres, centres)


def _pooled(module: PooledResidualAttention, x: Tensor, image_size: ImageSize) -> Places:
    found = []
    for pool in (module.pool_q, module.pool_k):
        stride = int(pool.stride[0])  # type: ignore[index] # a convolution, which the layer declares as a module
        grid = (-(-x.shape[1] // stride), -(-x.shape[2] // stride))
        found.append(coordinates(grid, image_size).flatten(0, 1)[None])
    return Places("pooled", *found)


def _map(module: nn.Module, x: Tensor, image_size: ImageSize) -> Places:  # noqa: ARG001 (one signature for all)
    centres = coordinates((x.shape[1], x.shape[2]), image_size).flatten(0, 1)[None]
    return Places("map", centres, centres)


_RULES: dict[type[nn.Module], Callable[[Any, Tensor, ImageSize], Places]] = {
    PartitionAttention: _partition,
    WindowAttention: _windows,
    AxialAttention: _axial,
    GlobalSparseAttention: _delegates,
    MobileViTBlock: _patches,
    PooledResidualAttention: _pooled,
    MapAttention: _map,
    ValueSkipAttention: _map,
}
