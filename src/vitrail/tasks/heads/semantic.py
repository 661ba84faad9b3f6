"""Heads that give every pixel a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.tasks.heads.pyramid import FeaturePyramidNetwork, conv_norm_act

POOL_SIZES = (1, 2, 3, 6)
"""Cells a side of pyramid pooling, as in PSPNet and UPerNet."""


def resize_to(x: Tensor, reference: Tensor) -> Tensor:
    """Bilinear, to the height and width of another map."""
    return F.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=False)


class SemanticFPN(nn.Module):
    """The head of Panoptic FPN (Kirillov et al., CVPR 2019, arXiv:1901.02446), which EdgeViT is published with.

    Each level of the pyramid is refined and enlarged by two until it has the size of the finest; their sum is
    classified.

    Args:
        channels: channels of each map, finest first.
        num_classes: outputs a pixel.
        width: channels inside.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        self.fpn = FeaturePyramidNetwork(channels, width)
        self.towers = nn.ModuleList(
            nn.ModuleList(conv_norm_act(width, width) for _ in range(max(depth, 1))) for depth in range(len(channels))
        )
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps, finest first, to logits (b, num_classes, h_0, w_0)."""
        levels = self.fpn(maps)
        total = None
        for depth, (tower, level) in enumerate(zip(self.towers, levels, strict=True)):
            for step, conv in enumerate(tower.children()):
                level = conv(level)
                if depth:
                    level = resize_to(level, levels[depth - 1 - step])
            total = level if total is None else total + level
        return self.classifier(total)


class PyramidPooling(nn.Module):
    """Averages of the whole image and of its parts, appended to every place (PSPNet, arXiv:1612.01105)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        # no norm: a batch of one has a single value a channel in the coarsest of them
        self.branches = nn.ModuleList(nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU()) for _ in POOL_SIZES)
        self.fuse = conv_norm_act(channels + len(POOL_SIZES) * width, width)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [branch(average_cells(x, size)) for branch, size in zip(self.branches, POOL_SIZES, strict=True)]
        return self.fuse(torch.cat([x, *(resize_to(part, x) for part in pooled)], dim=1))


def average_cells(x: Tensor, size: int) -> Tensor:
    """Adaptive average pooling to ``size`` x ``size`` as two matrix products: ONNX has no such operation."""
    rows, columns = (_averages(length, size, x) for length in x.shape[-2:])
    return rows @ x @ columns.T


def _averages(length: int, size: int, like: Tensor) -> Tensor:
    """(size, length): row i is the mean over cell i, with PyTorch's borders."""
    rows = []
    for i in range(size):
        start, stop = i * length // size, -((-(i + 1) * length) // size)
        rows.append([1 / (stop - start) if start <= j < stop else 0.0 for j in range(length)])
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


class UPerNet(nn.Module):
    """Pyramid pooling on the coarsest map, FPN below it, and all levels together (Xiao et al., ECCV 2018,
    arXiv:1807.10221), which ViTAEv2 is published with.

    Args:
        channels: channels of each map, finest first.
        num_classes: outputs a pixel.
        width: channels inside.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        self.pooling = PyramidPooling(channels[-1], width)
        self.fpn = FeaturePyramidNetwork([*channels[:-1], width], width)
        self.fuse = conv_norm_act(len(channels) * width, width)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps, finest first, to logits (b, num_classes, h_0, w_0)."""
        levels = self.fpn([*maps[:-1], self.pooling(maps[-1])])
        return self.classifier(self.fuse(torch.cat([resize_to(level, levels[0]) for level in levels], dim=1)))


class AuxiliaryHead(nn.Module):
    """A small classifier on an inner map, for a second loss in training (FCN head)."""

    def __init__(self, channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv_norm_act(channels, width), nn.Conv2d(width, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


HEADS: dict[str, Callable[[Sequence[int], int, int], nn.Module]] = {"semantic_fpn": SemanticFPN, "upernet": UPerNet}
"""Name -> what makes a head of the channels of the maps, the number of classes, and the width."""
