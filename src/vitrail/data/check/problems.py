"""What is wrong with images and annotations is collected, and then refused or skipped as the user sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from vitrail.core.errors import DataError
from vitrail.data.check.decoding import check_files
from vitrail.data.data_config import DataConfig
from vitrail.data.records import Record

AnyRecord = TypeVar("AnyRecord", bound=Record)

MAX_SHOWN = 3
"""Problems that an error names."""


class Problems:
    """Collects what is wrong with annotations and images, and then refuses or lists it.

    Attributes:
        names: samples that have to be left out.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.names: set[str] = set()
        self._annotations: list[str] = []
        self._images: list[tuple[str, str]] = []
        self._digests: dict[str, str] = {}

    def add(self, name: str, reason: str) -> None:
        """Add a wrong annotation; ``name`` is the sample, or the file with a line or an id."""
        self._annotations.append(f"{name}: {reason}")
        self.names.add(name)

    def check_images(self, root: Path, names: Sequence[str], *, progress: bool) -> dict[str, str]:
        """Leave out images that cannot be decoded; give the SHA-256 of every image (path inside ``root``)."""
        checks = check_files(root, names, max_pixels=self.config.max_pixels, progress=progress)
        for name, check in zip(names, checks, strict=True):
            if check.problem is not None:
                self._images.append((name, check.problem))
                self.names.add(name)
            self._digests[name] = check.digest
        return self._digests

    def settle(self, count: int) -> None:
        """Refuse the data if too much of it is wrong.

        Args:
            count: images in all.

        Raises:
            DataError: annotations are wrong and not to be skipped, or too many images cannot be decoded.
        """
        if self._annotations and self.config.bad_annotations == "refuse":
            raise DataError(
                f"{len(self._annotations)} annotations in {self.config.path} are wrong: {_first(self._annotations)}; "
                f"mend them, or pass bad_annotations=skip to go on without them"
            )
        if len(self._images) > self.config.max_bad_fraction * count:
            unusable = _first([f"{name} {problem}" for name, problem in self._images])
            raise DataError(
                f"{len(self._images)} of {count} images in {self.config.path} are unusable, more than the allowed "
                f"{self.config.max_bad_fraction:.1%}: {unusable}; mend or delete them, or raise max_bad_fraction"
            )

    def usable(self, records: Sequence[AnyRecord]) -> list[AnyRecord]:
        """:meth:`settle`, and then the samples that are not left out, with the digests of their files."""
        self.settle(len(records))
        return [
            replace(record, digest=self._digests.get(record.name, ""))
            for record in records
            if record.name not in self.names
        ]

    def listed(self) -> tuple[str, ...]:
        """Everything that is left out, for :attr:`~vitrail.data.DataSplits.skipped`."""
        return tuple(sorted([f"{name}: {reason}" for name, reason in self._images] + self._annotations))


def _first(reasons: Sequence[str]) -> str:
    more = f"; and {len(reasons) - MAX_SHOWN} more" if len(reasons) > MAX_SHOWN else ""
    return "; ".join(reasons[:MAX_SHOWN]) + more
