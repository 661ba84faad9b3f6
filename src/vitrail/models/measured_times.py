"""Times of one image that were measured before, for those who have not measured their own machine yet.

The table beside this file is made from docs/results/latency.json by ``benchmarks/latency.py``, which measures.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vitrail.core.files import read_json
from vitrail.core.types import ImageSize

MEASURED = Path(__file__).with_name("measured_times.json")
"""The machine, and variant -> the time of one image."""


@dataclass(frozen=True, kw_only=True)
class MeasuredTimes:
    """Times of single images with one thread, of classifiers with 1,000 classes in float32.

    Attributes:
        place: machine, runtime and day of the measurement, in words.
        rows: variant -> (size of its images, milliseconds of processor time).
    """

    place: str
    rows: Mapping[str, tuple[ImageSize, float]]

    def of(self, name: str, image_size: ImageSize) -> float | None:
        """Milliseconds for an image of that size; None where this was not measured, since other sizes say too little.

        Args:
            name: variant.
            image_size: (height, width) in pixels.
        """
        size, milliseconds = self.rows.get(name, ((0, 0), 0.0))
        return milliseconds if size == image_size else None


@functools.cache
def measured_times() -> MeasuredTimes:
    """The table of this package."""
    values = read_json(MEASURED)
    rows = {name: ((row["image_size"][0], row["image_size"][1]), row["ms"]) for name, row in values["times"].items()}
    return MeasuredTimes(place=values["place"], rows=rows)
