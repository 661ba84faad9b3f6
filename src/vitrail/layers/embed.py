"""Patch embeddings and position embeddings."""

from __future__ import annotations

from math import isqrt, prod
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import CheckpointError, ConfigError
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


class LearnedPosEmbed1d(nn.Module):
    """A learned row for every token, class token included; only the order of the rows encodes space.

    Source: ViT, section 3.1. The rows of the patches are resized to another grid by :meth:`resize`.
    """

    def __init__(self, grid: ImageSize, dim: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.grid = grid
        self.num_prefix_tokens = num_prefix_tokens
        self.table = nn.Parameter(torch.zeros(1, grid[0] * grid[1] + num_prefix_tokens, dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return x + self.table

    def resize(
        self, table: Float[Tensor, "1 m d"], rule: ResizeRule, old_grid: ImageSize | None = None
    ) -> Float[Tensor, "1 n d"]:
        """A checkpoint's table, fitted to this grid, see :func:`resize_pos_embed`."""
        return resize_pos_embed(table, self.grid, self.num_prefix_tokens, rule, old_grid)


class LearnedPosEmbed2d(nn.Module):
    """A learned vector for the column, concatenated with one for the row; class tokens get none.

    Source: ViT, appendix D.4 ("2-dimensional positional embedding").
    """

    def __init__(self, grid: ImageSize, dim: int, num_prefix_tokens: int) -> None:
        super().__init__()
        if dim % 2:
            raise ConfigError(f"learned_2d positions need an even width; {dim} is odd")
        self.num_prefix_tokens = num_prefix_tokens
        self.rows = nn.Parameter(torch.zeros(grid[0], dim // 2))
        self.columns = nn.Parameter(torch.zeros(grid[1], dim // 2))
        nn.init.trunc_normal_(self.rows, std=0.02)
        nn.init.trunc_normal_(self.columns, std=0.02)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        rows = self.rows[:, None].expand(-1, len(self.columns), -1)
        columns = self.columns[None].expand(len(self.rows), -1, -1)
        table = torch.cat([columns, rows], -1).flatten(0, 1)
        return x + F.pad(table, (0, 0, self.num_prefix_tokens, 0))


class SinCosPosEmbed2d(nn.Module):
    """Fixed sines and cosines of the column and the row, neither learned nor saved.

    Source: big_vision `posemb_sincos_2d` (Beyer et al. 2022, arXiv:2205.01580): a quarter of the width each for
    sin x, cos x, sin y, cos y, wavelengths from 2 pi to 20,000 pi in geometric progression.
    """

    table: Tensor

    def __init__(self, grid: ImageSize, dim: int, num_prefix_tokens: int, temperature: float = 10_000.0) -> None:
        super().__init__()
        if dim % 4:
            raise ConfigError(f"sincos_2d positions need a width that is a multiple of 4; {dim} is not")
        frequencies = temperature ** -torch.linspace(0, 1, dim // 4)
        y = torch.arange(grid[0])[:, None, None] * frequencies.expand(grid[1], -1)
        x = torch.arange(grid[1])[None, :, None] * frequencies.expand(grid[0], 1, -1)
        table = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], -1).flatten(0, 1)
        self.register_buffer("table", F.pad(table, (0, 0, num_prefix_tokens, 0)), persistent=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return x + self.table


def resize_pos_embed(
    table: Float[Tensor, "1 n d"],
    grid: ImageSize,
    num_prefix_tokens: int,
    rule: ResizeRule = "bicubic",
    old_grid: ImageSize | None = None,
) -> Float[Tensor, "1 m d"]:
    """Fit a learned position table to another grid of patches; rows of prefix tokens are kept.

    Args:
        table: one row for each prefix token, then one for each patch, row by row.
        grid: (rows, columns) of patches in the result.
        num_prefix_tokens: number of tokens before the patches with a row.
        rule: "bicubic" with antialiasing as timm 1.0, or "bilinear" with aligned corners as the authors' JAX code
            (scipy.ndimage.zoom, order 1).
        old_grid: the table's own grid; a square by default.

    Raises:
        CheckpointError: the rows are not those of the prefix tokens and of a whole grid.
    """
    prefix, patches = table[:, :num_prefix_tokens], table[:, num_prefix_tokens:]
    rows, columns = old_grid or (isqrt(max(patches.shape[1], 0)),) * 2
    if rows * columns != patches.shape[1] or not rows:
        raise CheckpointError(_wrong_rows(table.shape[1], num_prefix_tokens, old_grid))
    old = patches.float().unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
    if rule == "bicubic":
        resized = F.interpolate(old, grid, mode="bicubic", antialias=True)
    else:
        resized = F.interpolate(old, grid, mode="bilinear", align_corners=True)
    return torch.cat([prefix, resized.flatten(2).transpose(1, 2).to(table.dtype)], 1)


def _wrong_rows(count: int, num_prefix_tokens: int, grid: ImageSize | None) -> str:
    """What is wrong with a table of so many rows; 16 registers and two tokens are the most that are in use."""
    what = {0: "no class token", 1: "a class token", 2: "a class and a distillation token"}
    tokens = what.get(num_prefix_tokens, f"{num_prefix_tokens} other tokens")
    if grid is not None:
        needed = num_prefix_tokens + prod(grid)
        return f"the table has {count} rows; {grid[0]}x{grid[1]} patches and {tokens} need {needed}"
    others = [n for n in range(19) if n < count and isqrt(count - n) ** 2 == count - n]
    found = ""
    if others:
        side, extra = isqrt(count - others[0]), what.get(others[0], f"{others[0]} other tokens, such as registers")
        found = f" (it may be {side}x{side} patches and {extra})"
    return (
        f"the table has {count} rows, which is no square of patches with {tokens}{found}; weights of oblong images "
        "need a model of their image_size"
    )
