"""From pixels to tokens, and where a token is."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.types import ImageSize

ResizeRule = Literal["bicubic", "bilinear"]


class PatchEmbed(nn.Module):
    """Cut the image into patches and project each: one convolution whose kernel equals its stride.

    MACs: h w in_chans dim.
    """

    def __init__(self, in_chans: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, patch_size, patch_size)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        return self.proj(x).flatten(2).transpose(1, 2)


def resize_pos_embed(
    table: Float[Tensor, "1 n d"],
    new_grid: ImageSize,
    num_prefix_tokens: int,
    rule: ResizeRule = "bicubic",
    old_grid: ImageSize | None = None,
) -> Float[Tensor, "1 m d"]:
    """Fit a learned position table to another grid of patches; rows of prefix tokens are kept.

    Args:
        table: one row a prefix token, then one a patch, row by row.
        new_grid: (rows, columns) of patches.
        num_prefix_tokens: class tokens that have a row.
        rule: "bicubic" with antialiasing as timm 1.0, or "bilinear" with aligned corners as the authors' JAX code
            (scipy.ndimage.zoom, order 1).
        old_grid: the table's own grid; a square by default.
    """
    prefix, patches = table[:, :num_prefix_tokens], table[:, num_prefix_tokens:]
    side = round(patches.shape[1] ** 0.5)
    rows, columns = old_grid or (side, side)
    grid = patches.float().unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
    if rule == "bicubic":
        grid = F.interpolate(grid, new_grid, mode="bicubic", antialias=True)
    else:
        grid = F.interpolate(grid, new_grid, mode="bilinear", align_corners=True)
    return torch.cat([prefix, grid.flatten(2).transpose(1, 2).to(table.dtype)], 1)
