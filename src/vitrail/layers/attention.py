"""Full multi-head self-attention (Vaswani et al. 2017), through PyTorch's fused kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.core.types import ImageSize
from vitrail.layers.places import Places, map_places


class Attention(nn.Module):
    """Every token attends to every token.

    MACs for n tokens of width c: 4 n c^2 (projections) + 2 n^2 c (attention).
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"width {dim} cannot be shared by {num_heads} heads; choose a divisor of {dim}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        return self.proj(merge_heads(F.scaled_dot_product_attention(*split_qkv(self.qkv(x), self.num_heads))))


class MapAttention(Attention):
    """Full attention on a map with the channels last; MACs for h x w tokens: 4 h w c^2 + 2 (h w)^2 c."""

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        return super().forward(x.flatten(1, 2)).unflatten(1, x.shape[1:3])

    def token_places(self, x: Float[Tensor, "b h w c"], image_size: ImageSize) -> Places:
        """All tokens, see :class:`~vitrail.layers.places.HasPlaces`."""
        return map_places(x, image_size)


def masked_attention(
    q: Float[Tensor, "b heads nq d"],
    k: Float[Tensor, "b heads nk d"],
    v: Float[Tensor, "b heads nk d"],
    mask: Tensor | None,
    scale: float | None = None,
) -> Float[Tensor, "b heads nq d"]:
    """PyTorch's fused attention, exportable with a mask that is computed from parameters.

    PyTorch chooses the kernel by whether the mask needs a gradient, and kernels return different memory layouts. An
    export traces with gradients and lowers without them, and a view of one layout fails on the other. The result is
    therefore copied to a fixed layout.
    """
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out if mask is None else out.clone(memory_format=torch.contiguous_format)


def split_qkv(qkv: Float[Tensor, "b n c3"], num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """A joint projection with rows ordered (3, heads, head_dim) to q, k and v, each (b, heads, n, head_dim)."""
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def merge_heads(x: Float[Tensor, "b heads n d"]) -> Float[Tensor, "b n c"]:
    """(b, heads, n, head_dim) to (b, n, heads * head_dim)."""
    return x.transpose(1, 2).flatten(2)
