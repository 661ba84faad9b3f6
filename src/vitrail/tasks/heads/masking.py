"""Hidden cells of an image, and three ways to encode the rest.

Source: Dosovitskiy et al., ViT, appendix B.1.2 (corrupted embeddings); He et al., MAE, CVPR 2022 (dropped patches); Xie
et al., "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022, arXiv:2111.09886 (painted images).

Shapes: b images, n cells of the grid (patches, or squares of the image), d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.core.types import ImageSize
from vitrail.layers import Attention, Mlp, SinCosPosEmbed2d
from vitrail.models import Backbone, TokenBackbone

HEAD_DIM = 32
"""Width of the decoder's attention heads."""


class Cell(IntEnum):
    """What happens to a cell; all but the seen are to be predicted."""

    SEEN = 0
    MASKED = 1
    OTHER = 2
    KEPT = 3


@dataclass(frozen=True)
class Hidden:
    """Which cells are hidden, and how.

    Attributes:
        cells: values of :class:`Cell` (b, n).
        others: index of another cell of the same image for each cell (b, n).
        seen: indices of the seen cells (b, k), ascending; k is the same for every image.
    """

    cells: Tensor
    others: Tensor
    seen: Tensor


def draw_hidden(
    batch: int,
    count: int,
    *,
    ratio: float,
    masked: float,
    other: float,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> Hidden:
    """Choose cells at random; the numbers of each kind are exact in every image.

    Args:
        batch, count: images, and cells of each.
        ratio: share of the cells that is hidden.
        masked, other: shares of the hidden that become the mask, and another cell; the rest is kept as it is.
        device: the result's device.
        generator: source of random numbers; PyTorch's global one by default.
    """
    hidden = min(max(round(count * ratio), 1), count - 1)
    line = torch.full((count,), int(Cell.SEEN), device=device)
    line[:hidden] = int(Cell.KEPT)
    line[: round(hidden * (masked + other))] = int(Cell.OTHER)
    line[: round(hidden * masked)] = int(Cell.MASKED)
    order = torch.rand(batch, count, device=device, generator=generator).argsort(1)
    cells = line[order]
    step = torch.randint(1, count, (batch, count), device=device, generator=generator)
    others = (torch.arange(count, device=device) + step) % count
    seen = (cells != Cell.SEEN).int().argsort(stable=True, dim=1)[:, : count - hidden]
    return Hidden(cells, others, seen)


class CorruptedPatches(nn.Module):
    """Patch embeddings are replaced before positions are added; the number of tokens stays."""

    def __init__(self, backbone: TokenBackbone) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.zeros(backbone.feature_info[-1].channels))
        nn.init.trunc_normal_(self.mask, std=0.02)

    def forward(self, backbone: TokenBackbone, images: Tensor, hidden: Hidden) -> Tensor:
        """Images (b, c, h, w) to the features of all cells (b, n, d)."""
        patches = backbone.stem(images)
        others = patches.gather(1, hidden.others.unsqueeze(-1).expand_as(patches))
        patches = torch.where((hidden.cells == Cell.OTHER).unsqueeze(-1), others, patches)
        patches = torch.where((hidden.cells == Cell.MASKED).unsqueeze(-1), self.mask, patches)
        return encode(backbone, backbone.add_positions(patches))[:, backbone.num_prefix_tokens :]


class DroppedPatches(nn.Module):
    """The backbone encodes the visible patches alone; a light decoder gets their tokens and a mask for all others.

    Args:
        backbone: one whose blocks take subsets of the tokens.
        grid: (rows, columns) of patches.
        width: the decoder's width, a multiple of 32.
        depth: blocks of the decoder.
    """

    def __init__(self, backbone: TokenBackbone, grid: ImageSize, width: int, depth: int) -> None:
        super().__init__()
        if not backbone.takes_subsets:
            raise ConfigError(
                f"objective=mae drops patches, and this {type(backbone).__name__}'s layers need all of the grid; use "
                f"objective=mpp"
            )
        self.count = grid[0] * grid[1]
        self.embed = nn.Linear(backbone.feature_info[-1].channels, width)
        self.mask = nn.Parameter(torch.zeros(width))
        nn.init.trunc_normal_(self.mask, std=0.02)
        self.positions = SinCosPosEmbed2d(grid, width, 0)
        self.blocks = nn.Sequential(*(DecoderBlock(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, backbone: TokenBackbone, images: Tensor, hidden: Hidden) -> Tensor:
        """Images (b, c, h, w) to the decoder's features of all cells (b, n, width)."""
        prefix = backbone.num_prefix_tokens
        tokens = backbone.add_positions(backbone.stem(images))
        index = hidden.seen.unsqueeze(-1)
        seen = tokens[:, prefix:].gather(1, index.expand(-1, -1, tokens.shape[2]))
        encoded = self.embed(encode(backbone, torch.cat([tokens[:, :prefix], seen], 1))[:, prefix:])
        every = self.mask.to(encoded.dtype).expand(images.shape[0], self.count, -1)
        every = every.scatter(1, index.expand(-1, -1, encoded.shape[2]), encoded)
        return self.norm(self.blocks(self.positions(every)))


class DecoderBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.token_mixer = Attention(width, max(width // HEAD_DIM, 1))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, width) to the same."""
        x = x + self.token_mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PaintedCells(nn.Module):
    """Squares of the image are painted with one learned colour, for backbones that need a whole map.

    Args:
        backbone: any.
        size: pixels a side of a square; the stride of the last level must be a multiple of it.
    """

    def __init__(self, backbone: Backbone, size: int) -> None:
        super().__init__()
        self.size = size
        self.split = backbone.feature_info[-1].stride // size
        self.colour = nn.Parameter(torch.zeros(backbone.config.in_chans, 1, 1))

    def forward(self, backbone: Backbone, images: Tensor, hidden: Hidden) -> Tensor:
        """Images (b, c, h, w) to features (b, n / split^2, d): one token for ``split`` x ``split`` squares."""
        rows, columns = images.shape[2] // self.size, images.shape[3] // self.size
        painted = (hidden.cells != Cell.SEEN).view(-1, 1, rows, columns)
        painted = painted.repeat_interleave(self.size, 2).repeat_interleave(self.size, 3)
        images = torch.where(painted, self.colour, images)
        (level,) = backbone.forward_intermediates(images, [-1], norm=True, intermediates_only=True)
        return level.flatten(2).transpose(1, 2)


def encode(backbone: TokenBackbone, tokens: Tensor) -> Tensor:
    """Tokens (b, m, d) through all blocks and the final norm."""
    for tokens in backbone.forward_blocks(tokens):  # noqa: B007, B020 (only the last one is wanted)
        pass
    return backbone.final_norm(tokens)
