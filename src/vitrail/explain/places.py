"""Where the tokens of an attention call are in the image, as far as the modules that are called know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.core.types import ImageSize
from vitrail.layers import HasPlaces, Places, cell_centres


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
    """The places of an attention call, or None where they are unknown.

    Args:
        modules: the modules that are being called and their first arguments, the outermost first.
        shape: (groups, queries, keys) of the call.
        image_size: (height, width) in pixels.
        prefixes: how many tokens may come before the patches, the most probable first.
    """
    for module, x in reversed(modules):
        if isinstance(module, HasPlaces) and isinstance(x, Tensor):
            places = module.token_places(x, image_size)
            return places if (places.queries.shape[0], places.queries.shape[1]) == shape[:2] else None
    groups, queries, keys = shape
    found = token_grid(queries, image_size, prefixes)
    if groups != 1 or queries != keys or found is None:
        return None
    prefix, grid = found
    nowhere = torch.full((prefix, 2), torch.nan)
    centres = torch.cat([nowhere, cell_centres(grid, image_size).flatten(0, 1)])[None]
    return Places("tokens", centres, centres)
