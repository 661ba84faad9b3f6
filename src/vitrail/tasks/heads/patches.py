"""Targets of masked prediction: colours in 3 bits, or pixels.

Source: Dosovitskiy et al., ViT, appendix B.1.2; He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR
2022, arXiv:2111.06377 (normalised pixels).

Shapes: b images, n patches of ``size`` x ``size`` pixels, row by row; images and patches are uint8, 0 to 255.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 8
"""3 bits a channel."""

NUM_COLOURS = LEVELS**3


def cut(images: Tensor, size: int) -> Tensor:
    """Images (b, c, h, w) to patches (b, n, c, size, size)."""
    return images.unfold(2, size, size).unfold(3, size, size).flatten(2, 3).transpose(1, 2)


def join(patches: Tensor, columns: int) -> Tensor:
    """The inverse of :func:`cut` for ``columns`` patches in a row."""
    batch, count, channels, size, _ = patches.shape
    rows = patches.reshape(batch, count // columns, columns, channels, size, size)
    return rows.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, count // columns * size, columns * size)


def colour_class(colours: Tensor) -> Tensor:
    """Colours (..., 3) from 0 to 255 to the classes of their 3 highest bits, red first: 0 to 511."""
    red, green, blue = (colours.float() * (LEVELS / 256)).floor().clamp(0, LEVELS - 1).long().unbind(-1)
    return (red * LEVELS + green) * LEVELS + blue


def class_colour(classes: Tensor) -> Tensor:
    """The middle of a class's colours, (..., 3), uint8."""
    bits = torch.stack([classes // LEVELS**2, classes // LEVELS % LEVELS, classes % LEVELS], -1)
    return (bits * (256 // LEVELS) + 128 // LEVELS).to(torch.uint8)


class PatchTarget(ABC):
    """What is predicted of a patch of ``size`` x ``size`` pixels.

    Attributes:
        num_outputs: numbers that the model predicts for a patch.
    """

    num_outputs: int

    def __init__(self, size: int) -> None:
        self.size = size

    @abstractmethod
    def losses(self, output: Tensor, images: Tensor) -> Tensor:
        """One loss a patch (b, n), from predictions (b, n, num_outputs) and the images (b, 3, h, w)."""

    @abstractmethod
    def pixels(self, output: Tensor, images: Tensor) -> Tensor:
        """Predictions as patches (b, n, 3, size, size), uint8, for pictures."""


class Colours(PatchTarget):
    """The mean colours of ``side`` x ``side`` equal parts of a patch, each one of 512 classes.

    A side of 1 is the paper's mean colour; 4 is its "4x4 downsized version of the patch with 3bit colors in parallel".
    """

    def __init__(self, size: int, side: int) -> None:
        super().__init__(size)
        self.side = side
        self.num_outputs = side * side * NUM_COLOURS

    def classes(self, images: Tensor) -> Tensor:
        """(b, n, side * side)"""
        part = self.size // self.side
        means = cut(images.float(), self.size).unflatten(4, (self.side, part)).unflatten(3, (self.side, part))
        return colour_class(means.mean((4, 6)).flatten(3).transpose(2, 3))

    def losses(self, output: Tensor, images: Tensor) -> Tensor:
        """Mean cross-entropy of the parts."""
        logits = output.float().unflatten(2, (self.side**2, NUM_COLOURS))
        return (
            F.cross_entropy(logits.flatten(0, 2), self.classes(images).flatten(), reduction="none")
            .view(logits.shape[:3])
            .mean(2)
        )

    def pixels(self, output: Tensor, images: Tensor) -> Tensor:
        """The most probable colours, in squares."""
        classes = output.unflatten(2, (self.side, self.side, NUM_COLOURS)).argmax(-1)
        squares = class_colour(classes).movedim(-1, 2)
        part = self.size // self.side
        return squares.repeat_interleave(part, 3).repeat_interleave(part, 4)


class Pixels(PatchTarget):
    """Every pixel, by mean squared error; scaled to -1 to 1, or normalised patch by patch.

    Args:
        size: pixels a side.
        normalize: subtract each patch's mean and divide by its deviation, over pixels and channels.
    """

    def __init__(self, size: int, normalize: bool) -> None:
        super().__init__(size)
        self.normalize = normalize
        self.num_outputs = 3 * size * size

    def values(self, images: Tensor) -> Tensor:
        """What is predicted, (b, n, 3 * size * size)."""
        flat = self._flat(images)
        if not self.normalize:
            return flat
        mean, deviation = self._moments(flat)
        return (flat - mean) / deviation

    def losses(self, output: Tensor, images: Tensor) -> Tensor:
        """Mean squared error of a patch."""
        return (output.float() - self.values(images)).square().mean(2)

    def pixels(self, output: Tensor, images: Tensor) -> Tensor:
        """As predicted; a normalised patch gets the true mean and deviation back, which are not predicted."""
        if self.normalize:
            mean, deviation = self._moments(self._flat(images))
            output = output * deviation + mean
        shape = (3, self.size, self.size)
        return ((output + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).unflatten(2, shape)

    def _flat(self, images: Tensor) -> Tensor:
        return (cut(images.float(), self.size) / 127.5 - 1).flatten(2)

    @staticmethod
    def _moments(flat: Tensor) -> tuple[Tensor, Tensor]:
        return flat.mean(2, keepdim=True), (flat.var(2, keepdim=True) + 1e-6).sqrt()
