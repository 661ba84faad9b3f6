"""An estimate without a meter: processor time multiplied by a power that the user states."""

from __future__ import annotations

import time
from collections.abc import Callable

from vitrail.bench.energy.meter import ESTIMATED, Mark, unix_now


class CpuTimeEstimate:
    """The power that a busy core adds, times the processor seconds of this process.

    Its confidence interval is that of processor time; the error of the stated power is unknown.

    Args:
        watts: power that one busy core adds to that of the machine.
        cpu: clock of this process's processor time, in seconds.
    """

    source = ESTIMATED
    place = ""
    window_seconds = 1.0
    settle_seconds = 0.0

    def __init__(self, watts: float, cpu: Callable[[], float] = time.process_time) -> None:
        self.watts, self._cpu = watts, cpu
        self.reads = f"processor time x {watts:g} W a busy core, as stated"

    def mark(self) -> Mark:
        return Mark(unix_now(), (self._cpu(),))

    def energy_j(self, start: Mark, end: Mark) -> float:
        return (end.counters[0] - start.counters[0]) * self.watts

    def close(self) -> None:
        """Nothing is held open."""
