"""The whole picture in a frame of fixed size: dense tasks may not lose its borders, as a central crop does."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from vitrail.core.types import ImageSize, Preprocessing
from vitrail.data.pixels.fit import interpolation_mode
from vitrail.device.pixels import letterbox_size


@dataclass(frozen=True, kw_only=True)
class Letterbox:
    """How a picture lies in its frame: resized to ``inner``, at the top left, the rest is padding.

    Attributes:
        original: (height, width) of the picture.
        inner: (height, width) that it has in the frame.
        frame: (height, width) of the frame.
    """

    original: ImageSize
    inner: ImageSize
    frame: ImageSize

    @classmethod
    def of(cls, original: ImageSize, frame: ImageSize) -> Letterbox:
        """The largest one that keeps the picture's proportions (to a pixel)."""
        return cls(original=original, inner=letterbox_size(original, frame), frame=frame)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the frame for one of the picture: (horizontally, vertically)."""
        return self.inner[1] / self.original[1], self.inner[0] / self.original[0]

    def image(self, image: Tensor, preprocessing: Preprocessing) -> Tensor:
        """A uint8 picture (3, h, w) in its frame; the padding has the mean colour, which the model sees as zero."""
        if self.inner != tuple(image.shape[-2:]):
            image = F.resize(image, list(self.inner), interpolation_mode(preprocessing), antialias=True)
        grey = [round(255 * mean) for mean in preprocessing.mean]
        framed: Tensor = F.pad(image, self._padding(), fill=grey)
        return framed

    def mask(self, mask: Tensor, fill: int) -> Tensor:
        """A mask (h, w) of integers in its frame."""
        mask = mask.unsqueeze(0)
        if self.inner != tuple(mask.shape[-2:]):
            mask = F.resize(mask, list(self.inner), InterpolationMode.NEAREST_EXACT)
        framed: Tensor = F.pad(mask, self._padding(), fill=fill)
        return framed.squeeze(0)

    def _padding(self) -> list[int]:
        return [0, 0, self.frame[1] - self.inner[1], self.frame[0] - self.inner[0]]
