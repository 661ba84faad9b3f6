"""Where the tokens of an attention are in the image.

Windows, grids, delegates and pooled keys all come from a map. A mixer that does more than attend over all tokens of a
sequence says so itself, in ``token_places``: what it does to its map, it does to a map of coordinates, by the same
functions. Measures need not know which attention they look at, and a new mixer edits no measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from vitrail.core.types import ImageSize


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


@runtime_checkable
class HasPlaces(Protocol):
    """A module that says where the tokens of its attention are."""

    def token_places(self, x: Tensor, image_size: ImageSize) -> Places:
        """The places of the attention inside a call with ``x``, the module's input, for an image of (height, width)
        pixels."""


def cell_centres(grid: ImageSize, image_size: ImageSize) -> Tensor:
    """Centres of the cells of a grid that covers the image, in pixels: (rows, columns, 2)."""
    rows, columns = ((torch.arange(count) + 0.5) * (side / count) for count, side in zip(grid, image_size, strict=True))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)


def map_places(x: Tensor, image_size: ImageSize) -> Places:
    """All tokens of a map (b, h, w, c) as one group."""
    centres = cell_centres((x.shape[1], x.shape[2]), image_size).flatten(0, 1)[None]
    return Places("map", centres, centres)
