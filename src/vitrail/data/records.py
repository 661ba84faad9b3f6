"""What is known of one sample: its image, its part of the data, its annotation. One frozen dataclass a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

IGNORE = 255
"""Value of a mask where nothing is learnt or measured."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """An image, and what every annotated one has.

    Attributes:
        name: path inside the data folder, or an identifier where there is no file.
        source: image file, or the bytes of one.
        part: "train", "val" or "test" where the data says so, else "".
        digest: SHA-256 of the image file; "" before the file is read.
    """

    name: str
    source: Path | bytes
    part: str = ""
    digest: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """Paths in the data folder that it is read from, the image first."""
        return (self.name,)

    def fingerprint_line(self, digest: str) -> str:
        """What the fingerprint of the data takes of this sample. Never change it: runs keep the fingerprint.

        Args:
            digest: SHA-256 of the image file.
        """
        return f"{self.name}\0{digest}\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledImage(Record):
    """An image of one class.

    Attributes:
        label: class index.
    """

    label: int

    def fingerprint_line(self, digest: str) -> str:
        return f"{self.name}\0{self.label}\0{digest}\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiLabelImage(Record):
    """An image of any number of classes, also of none.

    Attributes:
        labels: indices of its classes, ascending.
        unknown: indices of the classes of which nobody said whether the image has them, ascending.
    """

    labels: tuple[int, ...]
    unknown: tuple[int, ...] = ()

    def fingerprint_line(self, digest: str) -> str:
        return f"{self.name}\0{digest}\0Labels(labels={self.labels!r}, unknown={self.unknown!r})\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxedImage(Record):
    """An image with objects; the fields have one entry an object.

    Attributes:
        boxes: where the objects are.
        labels: class indices.
        crowd: whether the box stands for a crowd, which is neither learnt nor measured.
        shapes: ``segmentation`` of COCO's JSON, None for a crowd; the field is None where masks are not read.
    """

    boxes: tuple[Box, ...]
    labels: tuple[int, ...]
    crowd: tuple[bool, ...]
    shapes: tuple[Any, ...] | None = None

    def fingerprint_line(self, digest: str) -> str:
        objects = f"Objects(boxes={self.boxes!r}, labels={self.labels!r}, crowd={self.crowd!r})"
        return f"{self.name}\0{digest}\0{objects}\n" + ("" if self.shapes is None else repr(self.shapes))


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedImage(Record):
    """An image with a class for every pixel.

    Attributes:
        mask_name: path of the mask inside the data folder, or that of the image where no file has the mask.
        read_mask: function that gives the mask, (h, w) uint8; it raises DataError where it cannot.
        mask_digest: SHA-256 of the mask's values; "" before the mask is checked.
    """

    mask_name: str
    read_mask: Callable[[], np.ndarray]
    mask_digest: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        return self.name, self.mask_name

    def fingerprint_line(self, digest: str) -> str:
        return f"{self.name}\0{digest}\0{self.mask_digest}\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class PosedObject(Record):
    """One object with keypoints; several may share an image.

    Attributes:
        image: path of the image inside the data folder.
        box: where the object is.
        keypoints: x and y in pixels, and 1 where the keypoint is labelled, else 0.
        area: pixels that the object covers.
    """

    image: str
    box: Box
    keypoints: tuple[tuple[float, float, float], ...]
    area: float

    @property
    def files(self) -> tuple[str, ...]:
        return (self.image,)

    def fingerprint_line(self, digest: str) -> str:
        instance = f"Instance(box={self.box!r}, keypoints={self.keypoints!r}, area={self.area!r})"
        return f"{self.name}\0{digest}\0{instance}\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredImage(Record):
    """An image and people's opinion of it.

    Attributes:
        score: mean score.
        votes: number of people who gave each score of the scale; empty where only the mean is known.
    """

    score: float
    votes: tuple[float, ...] = ()

    def fingerprint_line(self, digest: str) -> str:
        return f"{self.name}\0{digest}\0Opinion(score={self.score!r}, votes={self.votes!r})\n"
