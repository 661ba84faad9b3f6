"""What all kinds of annotations share: what is wrong with them is listed, and refused or skipped as the user sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image

from vitrail.core.errors import DataError
from vitrail.core.types import ImageSize
from vitrail.data.check import FileCheck
from vitrail.data.load import DataConfig
from vitrail.data.samples import Samples, draw_order
from vitrail.data.splits import DataSplits

TRANSPOSED = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap height and width."""

MOST_SHOWN = 3

AnySamples = TypeVar("AnySamples", bound=Samples)


class Problems:
    """Collects what is wrong with annotations and images, and then refuses it or lists it.

    Attributes:
        names: of the samples that have to be left out.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.names: set[str] = set()
        self._annotations: list[str] = []
        self._images: list[str] = []

    def add(self, name: str, reason: str, *, leave_out: bool = True) -> None:
        """``name`` is the sample (with a line or an id, where there is one)."""
        self._annotations.append(f"{name}: {reason}")
        if leave_out:
            self.names.add(name)

    def check_images(self, names: Sequence[str], checks: Sequence[FileCheck]) -> None:
        """Leave out images that cannot be decoded."""
        for name, check in zip(names, checks, strict=True):
            if check.problem is not None:
                self._images.append(f"{name}: {check.problem}")
                self.names.add(name)

    def settle(self, count: int) -> None:
        """
        Args:
            count: images in all.

        Raises:
            DataError: annotations are wrong and not to be skipped, or too many images cannot be decoded.
        """
        if self._annotations and self.config.bad_annotations == "refuse":
            raise DataError(
                f"{len(self._annotations)} annotations in {self.config.path} are wrong: {_some(self._annotations)}; "
                f"mend them, or pass bad_annotations=skip to go on without them"
            )
        if len(self._images) > self.config.max_bad_fraction * count:
            raise DataError(
                f"{len(self._images)} of {count} images in {self.config.path} are unusable, more than the allowed "
                f"{self.config.max_bad_fraction:.1%}: {_some(self._images)}; mend or delete them, or raise "
                f"max_bad_fraction"
            )

    def listed(self) -> tuple[str, ...]:
        """Everything that is left out, for :attr:`~vitrail.data.DataSplits.skipped`."""
        return tuple(sorted(self._images + self._annotations))


def _some(reasons: Sequence[str]) -> str:
    more = f"; and {len(reasons) - MOST_SHOWN} more" if len(reasons) > MOST_SHOWN else ""
    return "; ".join(reasons[:MOST_SHOWN]) + more


def divide(names: Sequence[str], parts: Sequence[str], config: DataConfig) -> dict[str, list[int]]:
    """Indices of the parts "train", "val" and "test"; where the data names no validation part, it is cut from training
    by seed and name.

    Raises:
        DataError: too few images to cut.
    """
    found = {part: [i for i, name in enumerate(parts) if name == part] for part in ("train", "val", "test", "")}
    to_cut = found.pop("") or ([] if found["val"] else found["train"])
    if to_cut:
        count = max(round(len(to_cut) * config.val_fraction), 1)
        if count == len(to_cut) and config.val_fraction < 1:
            raise DataError(f"{config.path} has {count} image for training and validation; give at least 2")
        chosen = {to_cut[i] for i in draw_order([names[i] for i in to_cut], config.seed)[:count]}
        found["train"], found["val"] = [i for i in to_cut if i not in chosen], sorted(chosen)
    return found


def as_splits(
    samples: AnySamples,
    parts: Sequence[str],
    config: DataConfig,
    *,
    classes: Sequence[str],
    fingerprint: str,
    skipped: Sequence[str],
) -> DataSplits[AnySamples]:
    """Samples, each with the name of its part (or ""), as a data set."""
    found = divide(samples.names, parts, config)
    return DataSplits(
        classes=tuple(classes),
        train=samples.subset(found["train"]),
        val=samples.subset(found["val"]),
        test=samples.subset(found["test"]) if found["test"] else None,
        fingerprint=fingerprint,
        skipped=tuple(skipped),
        source=config.path,
    )


def image_size_of(path: Path) -> ImageSize | None:
    """(height, width) as the decoder will give it, from the head of the file; None where that cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112) in TRANSPOSED
    except Exception:  # noqa: BLE001 (the check of the images says what is wrong with it)
        return None
    return (width, height) if turned else (height, width)
