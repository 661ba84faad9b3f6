"""What every meter can do: mark now, and tell later how much energy went between two marks.

Marking and asking are apart because some meters only know afterwards: the trace of an external meter is exported when
the measurement is over.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

ESTIMATED = "estimated"
"""The source of values that no meter has measured."""

SOURCES = ("rapl", "nvml", "jetson", "ina", "battery", "external-csv", ESTIMATED)
"""Where an energy value may come from; a value of any other source is not shown."""

_START_UNIX, _START = time.time(), time.perf_counter()


def unix_now() -> float:
    """Seconds since 1970 by a clock that never jumps, so that windows keep their length when the time is corrected."""
    return _START_UNIX + time.perf_counter() - _START


@dataclass(frozen=True)
class Mark:
    """A moment, as a meter saw it.

    Attributes:
        unix_s: when, in seconds since 1970.
        counters: what the meter's counters stood at, where it has any; in the meter's own unit.
    """

    unix_s: float
    counters: tuple[float, ...] = ()


class Meter(Protocol):
    """Measures the energy of some part of a machine.

    Attributes:
        source: one of :data:`SOURCES`.
        reads: what exactly is read, in words, for the result.
        place: the machine it measures; empty for this one.
        window_seconds: the shortest stretch of work that it measures to about a percent.
        settle_seconds: how long it lags behind a change of power.
    """

    source: str
    reads: str
    place: str
    window_seconds: float
    settle_seconds: float

    def mark(self) -> Mark:
        """Now.

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
