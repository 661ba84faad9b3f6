"""Local-global-local attention of EdgeViT (Pan et al., ECCV 2022, arXiv:2205.03436, section 3.1).

A convolution mixes neighbours (local aggregation), one delegate out of r x r tokens attends to the other delegates
(global sparse attention), and a transposed convolution spreads the result (local propagation).
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.types import ImageSize
from vitrail.layers.attention import merge_heads, split_qkv
from vitrail.layers.norm import LayerNorm2d
from vitrail.layers.places import Places, cell_centres


class LocalAggregation(nn.Module):
    """A 5x5 depthwise convolution between two pointwise ones.

    It replaces attention, and so has no activation. MACs: h w (2 c^2 + 25 c).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 1)
        self.depthwise = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv2 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.conv2(self.depthwise(self.conv1(x)))


class GlobalSparseAttention(nn.Module):
    """Self-attention among every ``sr_ratio``-th token of both axes; the result is spread over the map.

    The delegates are the top-left tokens of their r x r cells (plain subsampling, as the authors' code does it).
    With ``sr_ratio`` 1 it is full attention. MACs, for n = h w / r^2 delegates:
    3 n c^2 + 2 n^2 c (attention) + h w c (propagation, r > 1) + h w c^2 (projection).
    """

    def __init__(self, dim: int, num_heads: int, sr_ratio: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        self.qkv = nn.Linear(dim, 3 * dim)
        if sr_ratio > 1:
            self.propagate = nn.ConvTranspose2d(dim, dim, sr_ratio, sr_ratio, groups=dim)
            self.norm = LayerNorm2d(dim, eps=1e-5)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        delegates = x[:, :: self.sr_ratio, :: self.sr_ratio]
        grid = delegates.shape[1:3]
        q, k, v = split_qkv(self.qkv(delegates.flatten(1, 2)), self.num_heads)
        out = merge_heads(F.scaled_dot_product_attention(q, k, v)).unflatten(1, grid)
        if self.sr_ratio > 1:
            out = self.norm(self.propagate(out.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        return self.proj(out)

    def token_places(self, x: Float[Tensor, "b h w c"], image_size: ImageSize) -> Places:
        """Delegates, see :class:`~vitrail.layers.places.HasPlaces`."""
        centres = cell_centres((x.shape[1], x.shape[2]), image_size)
        centres = centres[:: self.sr_ratio, :: self.sr_ratio].flatten(0, 1)[None]
        return Places("delegates" if self.sr_ratio > 1 else "map", centres, centres)
