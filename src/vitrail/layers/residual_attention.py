"""Residual attention (Diko et al., "ReViT", 2024, arXiv:2402.11301): attention logits are averaged over depth.

Block i uses ``alpha L_i + (1 - alpha) R`` instead of its own logits L_i, where R are the logits that block i - 1 used:
an exponential moving average over the blocks, before the softmax. It slows down the feature collapse of deep blocks.

Cost: R is stored. Between two blocks these are (b, heads, queries, keys) numbers, and for the backward pass those of
every block, so memory grows with the square of the number of tokens, which fused attention avoids. ReViT-B at 224
pixels carries 12 x 196^2 = 0.46 M numbers for each image (1.8 MB in float32) from block to block; at 448 pixels 16
times as many. Only the last block, whose logits are not carried on, uses the fused kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import CheckpointError, ConfigError
from vitrail.core.types import ImageSize
from vitrail.layers.attention import masked_attention, merge_heads, split_qkv
from vitrail.layers.places import Places, cell_centres
from vitrail.layers.window import WindowAttention

Grid = tuple[int, int]


class CarriedLogits(NamedTuple):
    """Mixed attention logits, passed to the next block.

    Attributes:
        values: (b, heads, queries, keys).
        query_grid, key_grid: (rows, columns) of the queries' and the keys' map.
    """

    values: Tensor
    query_grid: Grid
    key_grid: Grid


def residual_attention(
    q: Float[Tensor, "b heads nq d"],
    k: Float[Tensor, "b heads nk d"],
    v: Float[Tensor, "b heads nk d"],
    carried: Float[Tensor, "b #heads nq nk"] | None,  # noqa: UP037 (a shape, though it reads as "b" and a comment)
    alpha: Tensor | float,
    *,
    bias: Tensor | None = None,
    late_bias: Tensor | None = None,
    mask: Tensor | None = None,
    carry: bool = True,
) -> tuple[Float[Tensor, "b heads nq d"], Float[Tensor, "b heads nq nk"] | None]:
    """``softmax(R + mask) v`` with ``R = alpha (q k^T / sqrt(d) + bias) + (1 - alpha) carried + late_bias``.

    Args:
        q, k, v: queries, keys, values.
        carried: R of the block before, in this block's shape (one head is broadcast); None in the first block.
        alpha: weight of this block's own logits.
        bias: part of this block's own logits, mixed like them (ReSwin).
        late_bias: bias added after mixing, and carried on (ReMViT).
        mask: mask added for the softmax only.
        carry: return R for the next block.

    Returns:
        the attended values, and R (None without ``carry``: then the mix is the additive mask of the fused kernel).
    """
    scale = q.shape[-1] ** -0.5
    own = 1.0 if carried is None else alpha.to(q.dtype) if isinstance(alpha, Tensor) else alpha
    bias, late_bias, mask = (None if extra is None else extra.to(q.dtype) for extra in (bias, late_bias, mask))
    rest = None if carried is None else (1 - own) * carried
    if not carry:
        parts = [None if bias is None else own * bias, rest, late_bias, mask]
        present = [part for part in parts if part is not None]
        extra = sum(present[1:], start=present[0]) if present else None
        return masked_attention(q * (own * scale), k, v, extra, 1.0), None
    logits = (q * scale) @ k.transpose(-2, -1)
    logits = logits if bias is None else logits + bias
    logits = logits if rest is None else own * logits + rest
    logits = logits if late_bias is None else logits + late_bias
    weights = (logits if mask is None else logits + mask).softmax(-1)
    return weights @ v, logits


class ResidualAttention(nn.Module):
    """Full self-attention with mixed logits (ReViT).

    MACs as full attention, 4 n c^2 + 2 n^2 c for n tokens of width c; memory: heads n^2 numbers an image, carried on.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"width {dim} cannot be shared by {num_heads} heads; choose a divisor of {dim}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "b n c"], carried: Tensor | None, alpha: Tensor | float, carry: bool = True
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b heads n n"] | None]:
        q, k, v = split_qkv(self.qkv(x), self.num_heads)
        out, logits = residual_attention(q, k, v, carried, alpha, carry=carry)
        return self.proj(merge_heads(out)), logits

    def own_probabilities(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b heads n n"]:
        """The attention of this block alone, without the logits of the blocks before."""
        q, k, _ = split_qkv(self.qkv(x), self.num_heads)
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1)


class ResidualWindowAttention(WindowAttention):
    """Window attention with mixed logits and a learned relative-position bias (ReSwin).

    The logits are carried as one row of (window, head) pairs, window by window; where the next block has another number
    of pairs, each takes the nearest one. Shifted and unshifted windows are mixed without alignment.

    MACs as window attention; memory: heads n m^2 numbers for each image of n tokens in windows of m x m, carried on.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, shift_size: int = 0, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads, window_size, shift_size=shift_size, qkv_bias=qkv_bias, rel_pos_bias=True)

    def forward(  # type: ignore[override] # the carried logits are what this one adds
        self, x: Float[Tensor, "b h w c"], carried: Tensor | None, alpha: Tensor | float, carry: bool = True
    ) -> tuple[Float[Tensor, "b h w c"], Float[Tensor, "b nh t t"] | None]:
        windows, shift = self.split(x)
        q, k, v = self.project(windows)
        if carried is not None:
            carried = resize_window_logits(carried, q.shape[1])
        bias, mask = self.bias(windows.shape[1]), self.mask(x.shape[1], x.shape[2], shift)
        out, logits = residual_attention(q, k, v, carried, alpha, bias=bias, mask=mask, carry=carry)
        return self.join(out, x.shape[1], x.shape[2], shift), logits


def resize_window_logits(logits: Float[Tensor, "b m t t"], count: int) -> Float[Tensor, "b n t t"]:
    """``count`` pairs (window, head) out of m, each the nearest: the floor(i m / count)-th."""
    if logits.shape[1] == count:
        return logits
    return logits[:, torch.arange(count, device=logits.device) * logits.shape[1] // count]


class PooledResidualAttention(nn.Module):
    """Attention over pooled queries, keys and values with mixed logits (MViTv2's mixer in ReMViT).

    A depthwise 3x3 convolution, shared by all heads, and a norm pool queries, keys and values. The decomposed
    relative-position bias q.(R_h + R_w) is added after mixing and is carried on (the authors write it in place into the
    carried tensor). The pooled queries are added to the result.

    MACs for n tokens, widths c -> d, q = n / stride_q^2 queries and k = n / stride_kv^2 keys of h x w each:
    3 n c d (qkv) + 9 d (q + 2 k) (pooling) + 2 q k d (attention) + q d (h_k + w_k) (bias) + q d^2 (projection).
    Memory: heads q k numbers for each image, carried on.

    Args:
        dim, out_dim, num_heads: widths and heads; the head width is out_dim / num_heads.
        input_grid: (rows, columns) of the input map, which sets the size of the bias tables.
        stride_q, stride_kv: strides of the pooling.
    """

    def __init__(
        self, dim: int, out_dim: int, num_heads: int, input_grid: Grid, stride_q: int = 1, stride_kv: int = 1
    ) -> None:
        super().__init__()
        if out_dim % num_heads:
            raise ConfigError(f"width {out_dim} cannot be shared by {num_heads} heads; choose a divisor of {out_dim}")
        head_dim = out_dim // num_heads
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * out_dim)
        self.pool_q, self.norm_q = _pooling(head_dim, stride_q)
        self.pool_k, self.norm_k = _pooling(head_dim, stride_kv)
        self.pool_v, self.norm_v = _pooling(head_dim, stride_kv)
        rows = [2 * max(side // stride_q, side // stride_kv) - 1 for side in input_grid]
        self.rel_pos_h = nn.Parameter(torch.empty(rows[0], head_dim))
        self.rel_pos_w = nn.Parameter(torch.empty(rows[1], head_dim))
        nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
        nn.init.trunc_normal_(self.rel_pos_w, std=0.02)
        self.proj = nn.Linear(out_dim, out_dim)

    def forward(
        self, x: Float[Tensor, "b h w c"], carried: CarriedLogits | None, alpha: Tensor | float, carry: bool = True
    ) -> tuple[Float[Tensor, "b hq wq d"], CarriedLogits | None]:
        # At most five dimensions, here and below: Core ML has no more.
        qkv = self.qkv(x).flatten(1, 2).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 4, 1)
        q, k, v = (part.unflatten(-1, x.shape[1:3]) for part in qkv.unbind(0))
        q, query_grid = _pool(q, self.pool_q, self.norm_q)
        k, key_grid = _pool(k, self.pool_k, self.norm_k)
        v, _ = _pool(v, self.pool_v, self.norm_v)
        values = None if carried is None else resize_logits(carried, self.num_heads, query_grid, key_grid)
        bias = self.relative_position_bias(q, query_grid, key_grid)
        out, logits = residual_attention(q, k, v, values, alpha, late_bias=bias, carry=carry)
        out = self.proj(merge_heads(out + q)).unflatten(1, query_grid)
        return out, None if logits is None else CarriedLogits(logits, query_grid, key_grid)

    def token_places(self, x: Float[Tensor, "b h w c"], image_size: ImageSize) -> Places:
        """Pooled maps, see :class:`~vitrail.layers.places.HasPlaces`."""
        found = []
        for pool in (self.pool_q, self.pool_k):
            stride = int(pool.stride[0])  # type: ignore[index] # a convolution, which the layer declares as a module
            grid = (-(-x.shape[1] // stride), -(-x.shape[2] // stride))
            found.append(cell_centres(grid, image_size).flatten(0, 1)[None])
        return Places("pooled", *found)

    def relative_position_bias(
        self, q: Float[Tensor, "b heads nq d"], query_grid: Grid, key_grid: Grid
    ) -> Float[Tensor, "b heads nq nk"]:
        """q.R_h[row distance] + q.R_w[column distance], of the unscaled queries."""
        r_h = self.rel_pos_h[pooled_distance_index(query_grid[0], key_grid[0], q.device)]
        r_w = self.rel_pos_w[pooled_distance_index(query_grid[1], key_grid[1], q.device)]
        maps = q.flatten(0, 1).unflatten(1, query_grid)
        rows = torch.einsum("nhwc,hkc->nhwk", maps, r_h)
        columns = torch.einsum("nhwc,wkc->nhwk", maps, r_w)
        bias = (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(3, 4).flatten(1, 2)
        return bias.unflatten(0, (-1, q.shape[1]))


def _pooling(head_dim: int, stride: int) -> tuple[nn.Module, nn.Module]:
    """A depthwise convolution that every head shares, and the norm after it."""
    conv = nn.Conv2d(head_dim, head_dim, 3, stride, padding=1, groups=head_dim, bias=False)
    return conv, nn.LayerNorm(head_dim, eps=1e-6)


def _pool(
    x: Float[Tensor, "b heads d h w"], pool: nn.Module, norm: nn.Module
) -> tuple[Float[Tensor, "b heads n d"], Grid]:
    """Convolve the map of every head, then normalise its tokens."""
    pooled = pool(x.flatten(0, 1))
    tokens = norm(pooled.flatten(2).transpose(1, 2))
    return tokens.unflatten(0, (-1, x.shape[1])), (pooled.shape[2], pooled.shape[3])


def pooled_distance_index(num_queries: int, num_keys: int, device: torch.device | None = None) -> Tensor:
    """Row of a decomposed table for every (query, key) along one axis, in steps of the finer of the two."""
    query_step, key_step = max(num_keys / num_queries, 1.0), max(num_queries / num_keys, 1.0)
    queries = torch.arange(num_queries, device=device)[:, None] * query_step
    keys = torch.arange(num_keys, device=device)[None, :] * key_step
    return (queries - keys + (num_keys - 1) * key_step).long()


def resize_logits(
    carried: CarriedLogits, num_heads: int, query_grid: Grid, key_grid: Grid
) -> Float[Tensor, "b #heads nq nk"]:  # noqa: UP037 (a shape, though it reads as "b" and a comment)
    """Carried logits in another block's shape.

    For another number of heads it is their mean, broadcast. For fewer queries or keys it is the average over the tokens
    that one token of the coarser map covers. For more keys, each is repeated.
    """
    values = carried.values
    if values.shape[1] != num_heads:
        values = values.mean(1, keepdim=True)
    if carried.query_grid != query_grid:
        values = _resize_axis(values, 2, carried.query_grid, query_grid)
    if carried.key_grid != key_grid:
        values = _resize_axis(values, 3, carried.key_grid, key_grid)
    return values


def _resize_axis(values: Tensor, axis: int, old: Grid, new: Grid) -> Tensor:
    before = values.shape[1:axis]
    values = values.flatten(0, axis - 1).unflatten(1, old)
    for side in (1, 2):
        had, wanted = values.shape[side], new[side - 1]
        if had > wanted:
            values = values.unflatten(side, (wanted, had // wanted)).mean(side + 1)
        elif had < wanted:
            repeats = [-1] * (values.ndim + 1)
            repeats[side + 1] = wanted // had
            values = values.unsqueeze(side + 1).expand(repeats).flatten(side, side + 1)
    return values.flatten(1, 2).unflatten(0, (-1, *before))


def resize_rel_pos(table: Float[Tensor, "m d"], new_length: int) -> Float[Tensor, "n d"]:
    """A decomposed relative-position table for another map: linear interpolation, as in MViT's code.

    Raises:
        CheckpointError: the table has an even number of rows.
    """
    if table.shape[0] % 2 == 0:
        raise CheckpointError(
            f"the table has {table.shape[0]} rows, and a side of n tokens has 2 n - 1; "
            "only tables of that form can be used"
        )
    if table.shape[0] == new_length:
        return table
    rows = table.float().T[None]
    return F.interpolate(rows, new_length, mode="linear")[0].T.to(table.dtype)
