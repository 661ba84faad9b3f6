"""A convolution whose inner product is a transformer (MobileViT; Mehta and Rastegari, ICLR 2022, arXiv:2110.02178)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitrail.core.errors import ConfigError
from vitrail.core.types import ImageSize
from vitrail.layers.attention import Attention
from vitrail.layers.conv import ConvNormAct
from vitrail.layers.mlp import Mlp
from vitrail.layers.places import Places, cell_centres


def unfold_patches(x: Float[Tensor, "b c h w"], patch_size: int) -> Float[Tensor, "groups n c"]:
    """A map to ``b * patch_size^2`` sequences: one for each position inside the patch, over all patches row by row."""
    p = patch_size
    cut = x.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # b, c, rows, p, columns, p
    return cut.permute(0, 3, 5, 2, 4, 1).flatten(3, 4).flatten(0, 2)


def fold_patches(tokens: Float[Tensor, "groups n c"], patch_size: int, map_size: ImageSize) -> Float[Tensor, "b c h w"]:
    """The inverse of :func:`unfold_patches` for a map of ``map_size`` pixels."""
    p = patch_size
    cut = tokens.reshape(-1, p, p, map_size[0] // p, map_size[1] // p, tokens.shape[-1])
    return cut.permute(0, 5, 3, 1, 4, 2).reshape(-1, tokens.shape[-1], map_size[0], map_size[1])


class TransformerBlock(nn.Module):
    """Pre-norm transformer block with SiLU. MACs for n tokens: (4 + 2 mlp_ratio) n c^2 + 2 n^2 c."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 2.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.token_mixer = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act=nn.SiLU)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        x = x + self.drop_path(self.token_mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class MobileViTBlock(nn.Module):
    """A convolution mixes neighbours, attention mixes the map, and a convolution fuses the result with the input.

    Attention runs over the patches, separately for each position inside the 2x2 patch, so a token attends to a quarter
    of the map; the 3x3 convolutions around it mix the four quarters. There is no position table. An odd side is
    stretched by one pixel (bilinear) before the attention and shrunk after it, as in the references.

    MACs for n = h w pixels, d = transformer_dim, mlp_ratio 2: n (27 c^2 + 2 c d) + depth (8 n d^2 + n^2 d / 2).

    Args:
        dim: channels of the map.
        transformer_dim, depth, num_heads, mlp_ratio: dimensions of the transformer inside.
        drop_paths: stochastic depth of each transformer block; none by default.
    """

    patch_size = 2

    def __init__(
        self,
        dim: int,
        transformer_dim: int,
        depth: int,
        *,
        num_heads: int = 4,
        mlp_ratio: float = 2.0,
        drop_paths: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        drop_paths = [0.0] * depth if drop_paths is None else drop_paths
        self.local_conv = ConvNormAct(dim, dim, 3)
        self.proj_in = nn.Conv2d(dim, transformer_dim, 1, bias=False)
        self.blocks = nn.Sequential(
            *(TransformerBlock(transformer_dim, num_heads, mlp_ratio, rate) for rate in drop_paths)
        )
        self.norm = nn.LayerNorm(transformer_dim, eps=1e-5)
        self.proj_out = ConvNormAct(transformer_dim, dim)
        self.fusion = ConvNormAct(2 * dim, dim, 3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        out = self.proj_in(self.local_conv(x))
        size = (x.shape[2], x.shape[3])
        even = (size[0] + size[0] % self.patch_size, size[1] + size[1] % self.patch_size)
        if even != size:
            out = F.interpolate(out, even, mode="bilinear", align_corners=False)
        out = fold_patches(self.norm(self.blocks(unfold_patches(out, self.patch_size))), self.patch_size, even)
        if even != size:
            out = F.interpolate(out, size, mode="bilinear", align_corners=False)
        return self.fusion(torch.cat([x, self.proj_out(out)], 1))

    def token_places(self, x: Float[Tensor, "b c h w"], image_size: ImageSize) -> Places:
        """Pixels at one position of all patches, see :class:`~vitrail.layers.places.HasPlaces`."""
        even = (x.shape[2] + x.shape[2] % self.patch_size, x.shape[3] + x.shape[3] % self.patch_size)
        centres = unfold_patches(cell_centres(even, image_size).permute(2, 0, 1)[None], self.patch_size)
        return Places("patches", centres, centres)


class ExShortcut(nn.Module):
    """ExMobileViT's head (arXiv:2309.01310): the classifier also reads earlier levels, through 1x1 convolutions.

    Each level of a pyramid is projected (1x1 convolution, BatchNorm, SiLU), averaged over the map and appended to one
    vector. It works on the levels of any backbone, whatever their strides.

    MACs: sum over the levels of h w in_dim dim.

    Args:
        in_dims: channels of the levels, from shallow to deep.
        dims: channels that each level contributes.
        crops: average only over the top-left crop x crop pixels of a level; None means the whole map.
    """

    def __init__(self, in_dims: Sequence[int], dims: Sequence[int], crops: Sequence[int | None] | None = None) -> None:
        super().__init__()
        self.crops = tuple(crops) if crops is not None else (None,) * len(dims)
        if not len(in_dims) == len(dims) == len(self.crops):
            raise ConfigError(
                f"{len(in_dims)} levels, {len(dims)} widths and {len(self.crops)} crops: need as many of each"
            )
        self.num_features = sum(dims)
        self.projections = nn.ModuleList(ConvNormAct(in_dim, dim) for in_dim, dim in zip(in_dims, dims, strict=True))

    def forward(self, levels: Sequence[Tensor]) -> Float[Tensor, "b n"]:
        """The levels (b, in_dim, h, w), from shallow to deep, to one vector (b, sum(dims))."""
        maps = [project(level) for project, level in zip(self.projections, levels, strict=True)]
        return torch.cat([x[:, :, :crop, :crop].mean((2, 3)) for x, crop in zip(maps, self.crops, strict=True)], 1)

    def forward_map(self, levels: Sequence[Tensor]) -> Float[Tensor, "b n h w"]:
        """The vector of :meth:`forward` as a map of the deepest level's size; its mean is the vector.

        Shallow levels are constant over the map.
        """
        *shallow, deep = [project(level) for project, level in zip(self.projections, levels, strict=True)]
        means = [x[:, :, :crop, :crop].mean((2, 3), keepdim=True) for x, crop in zip(shallow, self.crops, strict=False)]
        return torch.cat([*(mean.expand(-1, -1, deep.shape[2], deep.shape[3]) for mean in means), deep], 1)
