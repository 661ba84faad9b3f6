"""The cells of ViTAE (Xu et al., NeurIPS 2021, arXiv:2106.03348, section 3; Zhang et al., IJCV 2023, arXiv:2202.10108).

Two inductive biases of convolutions enter a transformer: scale, by embedding patches with several dilations at once
(pyramid reduction), and locality, by a branch of convolutions beside the attention (parallel convolution).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitrail.core.errors import ConfigError
from vitrail.core.types import ImageSize
from vitrail.layers.attention import merge_heads, split_qkv
from vitrail.layers.mlp import Mlp
from vitrail.layers.places import Places, map_places

BranchPart = Literal["conv", "norm", "act"]


class PyramidReduction(nn.Module):
    """Patches at several scales: one strided convolution for each dilation, GELU, concatenated along the channels.

    MACs: h w / stride^2 kernel_size^2 in_chans dim for each dilation.

    Args:
        in_chans: width of the map.
        dim: channels of each convolution; the result has ``dim * len(dilations)``, dilation by dilation.
        kernel_size, stride, dilations: arguments of the convolutions.
    """

    def __init__(self, in_chans: int, dim: int, kernel_size: int, stride: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for dilation in dilations:
            padding = ceil(((kernel_size - 1) * dilation + 1 - stride) / 2)
            self.convs.append(nn.Conv2d(in_chans, dim, kernel_size, stride, padding, dilation))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return torch.cat([F.gelu(conv(x)) for conv in self.convs], 1)


def branch_names(parts: Sequence[BranchPart]) -> tuple[str, ...]:
    """Names of a branch's modules, numbered by convolution: conv1, norm1, act1, conv2, ..."""
    count = 0
    names = []
    for part in parts:
        count += part == "conv"
        names.append(f"{part}{count}")
    return tuple(names)


def parallel_conv(
    dims: Sequence[int], parts: Sequence[BranchPart], *, groups: int = 1, strides: Sequence[int] = ()
) -> nn.Sequential:
    """The branch beside the attention: 3x3 convolutions, BatchNorm and SiLU in the order of ``parts``.

    MACs: 9 h w c d / groups for every convolution from c to d channels, h and w after its stride.

    Args:
        dims: width of the map, then of every convolution's output.
        parts: order of the layers.
        groups: groups of all convolutions.
        strides: stride of each convolution; 1 by default.
    """
    if any(dim % groups for dim in dims):
        raise ConfigError(f"widths {tuple(dims)} are not all multiples of the {groups} groups of the convolutions")
    branch = nn.Sequential()
    index = 0
    for name, part in zip(branch_names(parts), parts, strict=True):
        if part == "conv":
            stride = strides[index] if strides else 1
            branch.add_module(name, nn.Conv2d(dims[index], dims[index + 1], 3, stride, padding=1, groups=groups))
            index += 1
        else:
            branch.add_module(name, nn.BatchNorm2d(dims[index]) if part == "norm" else nn.SiLU())
    return branch


def reduction_strides(stride: int) -> tuple[int, int, int]:
    """Strides of the three convolutions beside a reduction: (2, 1, 1) for a stride of 2, (2, 2, 1) for 4."""
    first, second, third = (2 if stride >= 2**i else 1 for i in (1, 2, 3))
    if first * second * third != stride:
        raise ConfigError(f"a reduction by {stride} cannot be made of three strides 1 or 2; choose 2, 4 or 8")
    return first, second, third


class ValueSkipAttention(nn.Module):
    """Full attention that changes the width; the values are the skip connection (T2T-ViT's token transformer).

    MACs for n tokens, widths c -> d: n (3 c d + d^2) + 2 n^2 d.
    """

    def __init__(self, dim: int, out_dim: int, num_heads: int) -> None:
        super().__init__()
        if out_dim % num_heads:
            raise ConfigError(f"width {out_dim} cannot be shared by {num_heads} heads; choose a divisor of {out_dim}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * out_dim, bias=False)
        self.proj = nn.Linear(out_dim, out_dim)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w d"]:
        q, k, v = split_qkv(self.qkv(x.flatten(1, 2)), self.num_heads)
        out = merge_heads(v) + self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))
        return out.unflatten(1, x.shape[1:3])

    def token_places(self, x: Float[Tensor, "b h w c"], image_size: ImageSize) -> Places:
        """All tokens, see :class:`~vitrail.layers.places.HasPlaces`."""
        return map_places(x, image_size)


class NormalCell(nn.Module):
    """A transformer block with the convolution branch beside its attention, on the block's raw input.

    Args:
        token_mixer: module on maps (b, h, w, dim).
        branch: module on maps (b, dim, h, w).
        dim, mlp_ratio: width, and inner over outer width of the MLP.
        drop_path: stochastic depth of all three branches.
    """

    def __init__(self, token_mixer: nn.Module, branch: nn.Module, dim: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.parallel_conv = branch
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.token_mixer = token_mixer
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        local = self.drop_path(self.parallel_conv(x)).permute(0, 2, 3, 1)
        x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(self.token_mixer(self.norm1(x))) + local
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.permute(0, 3, 1, 2)


def sliced_drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Stochastic-depth rates of every stage, as the authors' code slices them.

    The rates grow linearly over all blocks, but stage i takes its slice from the position depths[i-1] on, not from the
    sum of all depths before it; published recipes were tuned with these rates.
    """
    rates = [rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths))]
    starts = [0, *depths[:-1]]
    return [rates[start : start + depth] for start, depth in zip(starts, depths, strict=True)]
