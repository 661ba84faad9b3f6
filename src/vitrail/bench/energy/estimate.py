"""No meter at all: processor time multiplied by a power that the user states. It measures nothing and says so."""

from __future__ import annotations

import time
from collections.abc import Callable

from vitrail.bench.energy.meter import ESTIMATED, Mark, unix_now


class CpuTimeEstimate:
    """Watts a busy core adds, times the processor seconds of this process.

    The interval that a measurement gives for it is that of processor time; how wrong the watts are, nobody knows.

    Args:
        watts: what one busy core adds to the power of the machine.
        cpu: seconds of processor time of this process.
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
