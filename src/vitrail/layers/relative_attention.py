"""Attention with relative position embeddings (ViT, appendix D.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.layers.attention import Attention, merge_heads, split_qkv


class RelativeAttention(Attention):
    """Full attention plus, before the softmax, the query's product with a learned key of the offset q - k.

    Offsets are counted along the sequence, as in the paper; the heads of a layer share one table of 2n - 1 keys. The
    offset logits are an additive mask of the fused kernel, so (b, heads, n, n) numbers are stored.
    MACs: those of :class:`Attention` + n (2n - 1) c.
    """

    def __init__(self, dim: int, num_heads: int, num_tokens: int, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads, qkv_bias)
        self.num_tokens = num_tokens
        self.offset_keys = nn.Parameter(torch.zeros(2 * num_tokens - 1, dim // num_heads))
        nn.init.trunc_normal_(self.offset_keys, std=0.02)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        q, k, v = split_qkv(self.qkv(x), self.num_heads)
        bias = self.by_key(q @ self.offset_keys.T) * q.shape[-1] ** -0.5
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))

    def by_key(self, by_offset: Float[Tensor, "b heads n offsets"]) -> Float[Tensor, "b heads n n"]:
        """Logits by offset (row n - 1 + q - k of the table) to logits by key, by skewing instead of gathering.

        In the reversed table the keys' logits of row q start at column n - 1 - q. Each row is padded by one number
        and then read one number later than the row before, which moves all starts to the same column.
        """
        n = self.num_tokens
        padded = F.pad(by_offset.flip(-1), (0, 1)).flatten(-2)
        return padded[..., n - 1 : n - 1 + n * (2 * n - 1)].unflatten(-1, (n, 2 * n - 1))[..., :n]
