"""Attention along one axis of a map at a time (Ho et al. 2019, arXiv:1912.12180)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.types import ImageSize
from vitrail.layers.attention import Attention
from vitrail.layers.places import Places, cell_centres

Axis = Literal["row", "column"]


class AxialAttention(nn.Module):
    """Every token attends to the tokens of its own row, or of its own column; the other axis is batch.

    A row mixer followed by a column mixer reaches every token from every other one.
    MACs on a map of h x w tokens of width c: 4 h w c^2 + 2 h w^2 c for rows, 4 h w c^2 + 2 h^2 w c for columns.
    """

    def __init__(self, dim: int, num_heads: int, axis: Axis, qkv_bias: bool = True) -> None:
        super().__init__()
        self.axis = axis
        self.attention = Attention(dim, num_heads, qkv_bias)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        if self.axis == "column":
            x = x.transpose(1, 2)
        out = self.attention(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return out.transpose(1, 2) if self.axis == "column" else out

    def token_places(self, x: Float[Tensor, "b h w c"], image_size: ImageSize) -> Places:
        """Rows or columns, see :class:`~vitrail.layers.places.HasPlaces`."""
        centres = cell_centres((x.shape[1], x.shape[2]), image_size)
        centres = centres.transpose(0, 1) if self.axis == "column" else centres
        return Places(self.axis, centres, centres)
