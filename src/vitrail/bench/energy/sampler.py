"""Meters of momentary power: they are read at intervals, and the readings become a trace."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from vitrail.bench.energy.meter import Mark, unix_now
from vitrail.bench.energy.trace import PowerTrace
from vitrail.core.errors import BenchError

GAP = 5
"""Number of intervals without a sample after which the meter counts as silent."""


class PowerSampler:
    """A meter made of a function that reads watts; a thread calls it every ``interval_s``.

    Every mark reads once more, so that a window begins and ends with a sample.

    Args:
        read: function that gives the present watts; it raises BenchError when the meter is gone.
        interval_s: seconds between readings, and between two updates of the sensor.
        source, reads, place, settle_seconds: see :class:`~vitrail.bench.energy.meter.Meter`.
        now: clock, in seconds since 1970.
    """

    def __init__(
        self,
        read: Callable[[], float],
        *,
        interval_s: float,
        source: str,
        reads: str,
        place: str = "",
        settle_seconds: float = 0.0,
        now: Callable[[], float] = unix_now,
    ) -> None:
        self.source, self.reads, self.place = source, reads, place
        self.window_seconds = 20 * interval_s
        self.settle_seconds = settle_seconds
        self._read, self._interval_s, self._now = read, interval_s, now
        self._samples: list[tuple[float, float]] = []
        self._error: BenchError | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"{source} meter", daemon=True)

    def start(self) -> PowerSampler:
        """Begin to read in the background; raises BenchError if the very first reading fails."""
        self.sample()
        self._thread.start()
        return self

    def sample(self) -> float:
        """Read once and keep the sample; returns its time."""
        with self._lock:
            before = self._now()
            watts = self._read()
            moment = (before + self._now()) / 2
            if not self._samples or moment > self._samples[-1][0]:
                self._samples.append((moment, watts))
            return moment

    def mark(self) -> Mark:
        if self._error:
            raise self._error
        return Mark(self.sample())

    def energy_j(self, start: Mark, end: Mark) -> float:
        with self._lock:
            times, watts = np.array(self._samples, dtype=np.float64).T
        return PowerTrace(times, watts, GAP * self._interval_s).energy_j(start.unix_s, end.unix_s)

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _loop(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.sample()
            except BenchError as error:
                self._error = error
                return
