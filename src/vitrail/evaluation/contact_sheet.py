"""The best and the worst images of a ranking, on one page."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

COLUMNS = 5
TILE = 160
GAP = 6
BETWEEN = 18
"""Pixels between the best and the worst, which are told apart by the gap alone."""


def contact_sheet(best: Sequence[Tensor], worst: Sequence[Tensor], columns: int = COLUMNS) -> Image.Image:
    """A white page: the best images in rows from the top, below a gap the worst.

    Args:
        best, worst: uint8 images (3, h, w) of any size, each in its order; they are shrunk into square tiles.
        columns: images in a row.
    """
    blocks = [_block(list(images), columns) for images in (best, worst) if images]
    gap = torch.full((3, BETWEEN, blocks[0].shape[2]), 255, dtype=torch.uint8)
    page = blocks[0] if len(blocks) == 1 else torch.cat([blocks[0], gap, blocks[1]], 1)
    return Image.fromarray(page.permute(1, 2, 0).contiguous().numpy())


def _block(images: list[Tensor], columns: int) -> Tensor:
    tiles = [_tile(image) for image in images]
    tiles += [torch.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [torch.cat(tiles[start : start + columns], 2) for start in range(0, len(tiles), columns)]
    return torch.cat(rows, 1)


def _tile(image: Tensor) -> Tensor:
    scale = TILE / max(image.shape[-2:])
    size = [max(round(side * scale), 1) for side in image.shape[-2:]]
    shrunk = F.resize(image, size, antialias=True)
    top, left = ((TILE - side) // 2 + GAP for side in size)
    tile = torch.full((3, TILE + 2 * GAP, TILE + 2 * GAP), 255, dtype=torch.uint8)
    tile[:, top : top + size[0], left : left + size[1]] = shrunk
    return tile
