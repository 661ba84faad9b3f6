"""What is wrong with images and annotations is collected, and then refused, skipped or shown as the user sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from vitrail.core.errors import DataError
from vitrail.core.types import PixelRange
from vitrail.data.check.decoding import FileCheck, check_files
from vitrail.data.data_config import DataConfig
from vitrail.data.pixels.decode import COLOUR, FULL_RANGE, NARROW, range_of
from vitrail.data.records import Record

AnyRecord = TypeVar("AnyRecord", bound=Record)

MAX_SHOWN = 3
"""Problems that a message names."""

MOST_NAMED = 20
"""Files that are named where the names are what counts; more are counted."""

BAD_FRACTION = 0.01
FEW_BAD = 3
"""Share and number of images that may be unusable where no limit is given; the larger counts."""


@dataclass(frozen=True, order=True)
class LeftOut:
    """Files that are no samples, and are not wrong either.

    Attributes:
        path: path of a file inside the data folder, or of the folder that holds several; "" for what has no place.
        reason: what the files are.
        count: number of files.
    """

    path: str
    reason: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


class Problems:
    """Collects what is wrong with annotations and images, and then refuses or lists it.

    Attributes:
        names: samples that have to be left out.
        damaged: images that libjpeg decodes but calls damaged -> its words.
        digests: images -> SHA-256 of the file.
        pixel_range: values that become black and white in grey images of more than 8 bits; None without such images.
        remarks: sentences on what was decided about the data, each once.
        warnings: sentences on what is suspicious and not refused.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.names: set[str] = set()
        self.damaged: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        self.pixel_range: PixelRange | None = None
        self.remarks: list[str] = []
        self.warnings: list[str] = []
        self._annotations: list[str] = []
        self._images: list[tuple[str, str]] = []
        self._left_out: list[LeftOut] = []

    def add(self, name: str, reason: str) -> None:
        """Add a wrong annotation; ``name`` is the sample, or the file with a line or an id."""
        self._annotations.append(f"{name}: {reason}")
        self.names.add(name)

    def remark(self, text: str) -> None:
        """Add a sentence on what was decided about the data; "" says nothing."""
        if text and text not in self.remarks:
            self.remarks.append(text)

    @contextmanager
    def told_first(self) -> Iterator[None]:
        """What is wrong with annotations is the reason of errors such as "no classes": it is told instead of them, or
        with them where it is skipped.

        Raises:
            DataError: the block raises one.
        """
        try:
            yield
        except DataError as error:
            if not self._annotations:
                raise
            self._refuse_annotations()
            raise DataError(f"{error} (left out: {_first(self._annotations)})") from error

    def leave_out(self, found: Iterable[LeftOut]) -> None:
        """Add files that are no samples; they are listed, and refuse nothing."""
        self._left_out += found

    def check_images(self, root: Path, names: Sequence[str], *, progress: bool) -> dict[str, str]:
        """Leave out images that cannot be decoded; give the SHA-256 of every image (path inside ``root``)."""
        found = check_files(root, names, max_pixels=self.config.max_pixels, progress=progress)
        checks = dict(zip(names, found, strict=True))
        for name, check in checks.items():
            if check.problem is not None:
                self._images.append((name, check.problem))
                self.names.add(name)
        self.digests = {name: check.digest for name, check in checks.items()}
        self.damaged = {name: check.damage for name, check in checks.items() if check.damage}
        if self.damaged:
            self.warnings.append(
                f"{len(self.damaged)} JPEG files are damaged inside and used as they decode: "
                f"{_first([f'{name} ({words})' for name, words in self.damaged.items()], MOST_NAMED)}; copy them again "
                f"or delete them"
            )
        self._choose_pixel_range(checks)
        return self.digests

    def _choose_pixel_range(self, checks: Mapping[str, FileCheck]) -> None:
        """One range for grey images with more than 8 bits, and a warning where a kind of image fills little of it."""
        deep = [check.deep for check in checks.values() if check.deep is not None]
        if grey := [one for one in deep if one.kind != COLOUR]:
            self.pixel_range = self.config.pixel_range or range_of(grey)
        for kind, count in Counter(one.kind for one in deep).items():
            low, high = FULL_RANGE if kind == COLOUR else self.pixel_range or FULL_RANGE
            least = min(one.low for one in deep if one.kind == kind)
            most = max(one.high for one in deep if one.kind == kind)
            seen = max(min(most, high) - max(least, low), 0) / (high - low)
            spread = f"--pixel-range {least:g} {most if most > least else least + 1:g} spreads them"
            if seen < NARROW:
                self.warnings.append(
                    f"{count} {kind} images have values from {least:g} to {most:g}, {seen:.1%} of the range from "
                    f"{low:g} (black) to {high:g} (white), so that they are nearly one shade; "
                    f"{'save them with 8 bits that fill the range' if kind == COLOUR else spread}"
                )

    def settle(self, count: int) -> None:
        """Refuse the data if too much of it is wrong.

        Args:
            count: images in all.

        Raises:
            DataError: annotations are wrong and not to be skipped, or too many images cannot be decoded.
        """
        self._refuse_annotations()
        fraction = self.config.max_bad_fraction
        allowed = max(BAD_FRACTION * count, FEW_BAD) if fraction is None else fraction * count
        if len(self._images) > allowed:
            limit = f"{BAD_FRACTION:.1%} or {FEW_BAD} files" if fraction is None else f"{fraction:.1%}"
            unusable = _first([f"{name} {problem}" for name, problem in self._images])
            raise DataError(
                f"{len(self._images)} of {count} images in {self.config.path} are unusable, more than the allowed "
                f"{limit}: {unusable}; mend or delete them, or raise max_bad_fraction"
            )

    def _refuse_annotations(self) -> None:
        if self._annotations and self.config.bad_annotations == "refuse":
            raise DataError(
                f"{len(self._annotations)} annotations in {self.config.path} are wrong: {_first(self._annotations)}; "
                f"mend them, or pass bad_annotations=skip to go on without them"
            )

    def usable(self, records: Sequence[AnyRecord]) -> list[AnyRecord]:
        """:meth:`settle`, and then the samples that are not left out, with the digests of their files.

        Raises:
            DataError: as :meth:`settle`, or nothing is left.
        """
        self.settle(len(records))
        good = [record for record in records if record.name not in self.names]
        if not good and self.names:
            raise DataError(f"{self.config.path} has no usable images; all are left out: {_first(self.listed())}")
        return [replace(record, digest=self.digests.get(record.name, "")) for record in good]

    def listed(self) -> tuple[str, ...]:
        """Everything that is left out, for :attr:`~vitrail.data.DataSplits.skipped`."""
        images = [f"{name}: {reason}" for name, reason in self._images]
        return tuple(sorted(map(readable, images + self._annotations + [str(one) for one in self._left_out])))

    @property
    def undecodable(self) -> tuple[str, ...]:
        """ "path: reason" for every image that cannot be decoded."""
        return tuple(sorted(readable(f"{name}: {reason}") for name, reason in self._images))

    @property
    def wrong_annotations(self) -> tuple[str, ...]:
        """ "name: reason" for every wrong annotation."""
        return tuple(sorted(map(readable, self._annotations)))

    @property
    def count(self) -> int:
        """Number of files and annotations that are left out."""
        return len(self._images) + len(self._annotations) + sum(one.count for one in self._left_out)

    def summary(self) -> list[str]:
        """A sentence on everything that is left out, if anything is."""
        return [f"Left out: {self.count} ({_first(self.listed())})"] if self.count else []


def readable(text: str) -> str:
    """The same where a text file can hold it: bytes of file names that are no UTF-8 are written as ``\\xe9``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _first(reasons: Sequence[str], count: int = MAX_SHOWN) -> str:
    more = f"; and {len(reasons) - count} more" if len(reasons) > count else ""
    return "; ".join(reasons[:count]) + more
