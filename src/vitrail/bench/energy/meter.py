"""The interface of every meter: mark a moment, and give the energy between two marks later.

The two are apart because the trace of an external meter is exported when the measurement is over.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

ESTIMATED = "estimated"
"""Source of values that no meter has measured."""

SOURCES = ("rapl", "nvml", "jetson", "ina", "battery", "external-csv", ESTIMATED)
"""Sources of energy values; a value of any other source is not shown."""

_START_UNIX, _START = time.time(), time.perf_counter()


def unix_now() -> float:
    """Seconds since 1970 by a clock that never jumps, so that windows keep their length when the time is corrected."""
    return _START_UNIX + time.perf_counter() - _START


@dataclass(frozen=True)
class Mark:
    """A moment, with the meter's state.

    Attributes:
        unix_s: time in seconds since 1970.
        counters: values of the meter's counters, where it has any; in the meter's own unit.
    """

    unix_s: float
    counters: tuple[float, ...] = ()


class Meter(Protocol):
    """Measures the energy of some part of a machine.

    Attributes:
        source: one of :data:`SOURCES`.
        reads: the quantity that is read, in words, for the result.
        place: the machine that it measures; empty for this one.
        window_seconds: shortest stretch of work that it measures to about a percent.
        settle_seconds: delay after a change of power.
    """

    source: str
    reads: str
    place: str
    window_seconds: float
    settle_seconds: float

    def mark(self) -> Mark:
        """The present moment.

        Raises:
            BenchError: the meter cannot be read any more.
        """
        ...

    def energy_j(self, start: Mark, end: Mark) -> float:
        """Joules between two marks of this meter.

        Raises:
            BenchError: the meter does not know.
        """
        ...

    def close(self) -> None:
        """Stop reading."""
        ...
