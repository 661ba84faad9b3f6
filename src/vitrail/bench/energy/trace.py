"""Power over time, and the energy of a stretch of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import BenchError


@dataclass(frozen=True, eq=False)
class PowerTrace:
    """Samples of power; between them it is taken to change linearly.

    Attributes:
        seconds: times of the samples, increasing; the origin is that of the questions.
        watts: power at these times.
        max_gap_s: longest gap between samples; a longer one means that the meter did not answer.
    """

    seconds: NDArray[np.float64]
    watts: NDArray[np.float64]
    max_gap_s: float

    def energy_j(self, start: float, end: float) -> float:
        """Joules from ``start`` to ``end`` by the trapezoidal rule.

        Raises:
            BenchError: the samples do not cover the stretch, or have a gap in it.
        """
        times = self.seconds
        if len(times) < 2 or start < times[0] - self.max_gap_s or end > times[-1] + self.max_gap_s:
            covered = f"from {times[0]:.3f} to {times[-1]:.3f} s" if len(times) else "nothing"
            raise BenchError(f"the meter's samples cover {covered}, not {start:.3f} to {end:.3f} s; measure again")
        inside = times[(times > start) & (times < end)]
        knots = np.concatenate([[start], inside, [end]])
        widest = float(np.diff(knots).max())
        if widest > self.max_gap_s:
            raise BenchError(
                f"the meter was silent for {widest:.2f} s of a window (allowed: {self.max_gap_s:.2f} s); repeat it"
            )
        return float(np.trapezoid(np.interp(knots, times, self.watts), knots))
