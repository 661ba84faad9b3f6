"""Pooling as a token mixer (Yu et al., PoolFormer, CVPR 2022, arXiv:2111.11418, section 3.2)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class PoolingMixer(nn.Module):
    """Every token becomes the mean of its neighbourhood minus itself; the residual around the mixer adds it again.

    There are no parameters. MACs: 0; n pool_size^2 c additions for n = h w tokens of width c. Padding at the edge of
    the map does not enter the mean.
    """

    def __init__(self, pool_size: int = 3) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(pool_size, 1, pool_size // 2, count_include_pad=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.pool(x) - x
