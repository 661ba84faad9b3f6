"""An object in a frame of fixed size: turned, nearer or farther."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V

from vitrail.core.types import ImageSize, Preprocessing
from vitrail.device.pixels import view_of


@dataclass(frozen=True, kw_only=True)
class View:
    """A turned rectangle of an image, as it fills a frame.

    Attributes:
        centre: (x, y) of its middle, in pixels of the image.
        scale: pixels of the frame for one pixel of the image.
        turn: angle in degrees.
        frame: (height, width) of the frame.
    """

    centre: tuple[float, float]
    scale: float
    turn: float
    frame: ImageSize

    @classmethod
    def of(cls, box: Sequence[float], frame: ImageSize, *, zoom: float = 1.0, turn: float = 0.0) -> View:
        """A box with a margin, in the middle of the frame."""
        centre, scale = view_of(box, frame)
        return cls(centre=centre, scale=zoom * scale, turn=turn, frame=frame)

    def _rotation(self) -> Tensor:
        angle = math.radians(self.turn)
        return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def to_frame(self, points: Tensor) -> Tensor:
        """Points (..., 2) of the image in pixels of the frame."""
        middle = torch.tensor([self.frame[1] / 2, self.frame[0] / 2])
        return (points - torch.tensor(self.centre)) @ self._rotation() * self.scale + middle

    def to_image(self, points: Tensor) -> Tensor:
        """The inverse of :meth:`to_frame`."""
        middle = torch.tensor([self.frame[1] / 2, self.frame[0] / 2])
        return (points - middle) / self.scale @ self._rotation().T + torch.tensor(self.centre)

    def image(self, image: Tensor, preprocessing: Preprocessing) -> Tensor:
        """A uint8 image (3, h, w) as the frame shows it; outside of the image there is the mean colour."""
        height, width = image.shape[-2:]
        if self.scale < 1:  # a grid of points alone would skip pixels
            size = [max(round(height * self.scale), 1), max(round(width * self.scale), 1)]
            image = V.resize(image, size, antialias=True)
        rows, columns = ((torch.arange(n) + 0.5) for n in self.frame)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        places = self.to_image(torch.stack([x, y], -1)) / torch.tensor([width, height]) * 2 - 1
        mean = 255 * torch.tensor(preprocessing.mean, dtype=torch.float32).view(-1, 1, 1)
        seen = F.grid_sample((image - mean).unsqueeze(0), places.unsqueeze(0), align_corners=False).squeeze(0) + mean
        return seen.round().clamp(0, 255).to(torch.uint8)
