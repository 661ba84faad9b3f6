"""The trace of an external power meter as a CSV file, aligned with the measurement by time.

The formats are Monsoon's, those of PowerTool (``Time (s), Main Avg Power (mW), ...``) and of its Python library
(``Time(ms), Main(mA), Main Voltage(V)``), and similar ones: a column of time, and one of power or two of current and
voltage, with units in parentheses. Times may be dates, seconds since 1970, or seconds since the meter was started. In
the last case the trace is shifted to where power is high during work and low during idling.
"""

from __future__ import annotations

import csv
import io
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitrail.bench.energy.meter import Mark, unix_now
from vitrail.bench.energy.result import EnergyWindow
from vitrail.bench.energy.trace import PowerTrace
from vitrail.core.errors import BenchError
from vitrail.core.files import open_regular

Array = NDArray[np.float64]
UNITS = {
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "w": 1.0,
    "mw": 1e-3,
    "uw": 1e-6,
    "a": 1.0,
    "ma": 1e-3,
    "ua": 1e-6,
    "v": 1.0,
    "mv": 1e-3,
}
MONSOON_HZ = 5000
"""The highest sampling rate of a Monsoon; its Python library writes seconds under the heading "Time(ms)"."""

UNIX_SINCE = 1e9
"""Smallest time that counts as seconds since 1970 (it is in 2001)."""

LEAST_MATCH = 0.7
"""Smallest correlation of power with work and idling at which a trace belongs to the measurement."""

STEPS = 4000
"""Number of shifts in each pass of the search; later passes search around the best one, finer."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """A trace as read from the file; ``absolute`` if its times are seconds since 1970."""

    seconds: Array
    watts: Array
    absolute: bool


class CsvMeter:
    """An external meter whose file may appear after the measurement; marks only take the time.

    Args:
        file: CSV file of the trace.
        started: start of the meter in seconds since 1970, for files without it.
    """

    source = "external-csv"
    place = ""
    window_seconds = 2.0
    settle_seconds = 0.1

    def __init__(self, file: Path, started: float | None = None) -> None:
        self.file, self.started = file, started
        self.reads = f"trace {file.name}"
        self._trace: PowerTrace | None = None

    def mark(self) -> Mark:
        return Mark(unix_now())

    def align(self, windows: Sequence[EnergyWindow]) -> None:
        """Read the file, and align it with the windows of the measurement.

        Raises:
            BenchError: the file is missing or is no trace, or does not fit the windows.
        """
        recorded = read_trace(self.file)
        shift = 0.0
        if not recorded.absolute:
            shift = self.started if self.started is not None else find_shift(recorded, windows)
        gap = max(5 * float(np.median(np.diff(recorded.seconds))), 0.01)
        self._trace = PowerTrace(recorded.seconds + shift, recorded.watts, gap)

    def energy_j(self, start: Mark, end: Mark) -> float:
        if self._trace is None:
            raise BenchError(f"{self.file.name} is not aligned with the measurement yet")
        return self._trace.energy_j(start.unix_s, end.unix_s)

    def close(self) -> None:
        """Nothing is held open."""


def read_trace(file: Path) -> Recorded:
    """The contents of a CSV trace.

    Raises:
        BenchError: the file cannot be read, lacks a column, or has fewer than two samples.
    """
    try:
        with open_regular(file) as stream:
            rows = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline=""))
            names = _headings(file, rows)
            columns = _columns(file, names)
            samples = array("d")  # minutes at 5 kHz are millions of rows
            for row in rows:
                try:
                    when, watts = _moment(row[0]), math.prod(float(row[i]) * scale for i, scale in columns)
                except (ValueError, IndexError):
                    continue  # a cut last line, a comment
                if math.isfinite(when) and math.isfinite(watts):
                    samples.extend((when, watts))
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise BenchError(f"power trace {file} cannot be read: {reason}; export it from the meter") from error
    if len(samples) < 4:
        raise BenchError(f"power trace {file} has {len(samples) // 2} samples; it needs two at least")
    return _in_seconds(np.array(samples, dtype=np.float64).reshape(-1, 2), names[0])


def _headings(file: Path, rows: Iterator[list[str]]) -> list[str]:
    """The first row that begins with a time; the rows before it describe the capture."""
    for row in rows:
        if row and re.match(r"\s*(time|date)", row[0], re.IGNORECASE):
            return [name.strip().lower() for name in row]
    raise BenchError(f"power trace {file} has no row of headings that begins with Time; export it as CSV")


def _columns(file: Path, names: Sequence[str]) -> list[tuple[int, float]]:
    """The columns whose product is watts, each with the factor that makes its values SI."""
    if (power := _find(names, "power", "w", "mw", "uw")) is not None:
        return [power]
    current, voltage = _find(names, "", "a", "ma", "ua"), _find(names, "", "v", "mv")
    if current is None or voltage is None:
        raise BenchError(
            f"power trace {file} has neither a power (W) nor a current (A) and a voltage (V); export them too"
        )
    return [current, voltage]


def _find(names: Sequence[str], word: str, *units: str) -> tuple[int, float] | None:
    """The first column after the first that has ``word`` and a unit, with the factor that makes its values SI."""
    for index, name in enumerate(names[1:], start=1):
        found = re.search(r"\(\s*(\w+)\s*\)", name)
        if word in name and found and found[1] in units:
            return index, UNITS[found[1]]
    return None


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        when = datetime.fromisoformat(text.strip())
        return (when if when.tzinfo else when.astimezone(UTC)).timestamp()


def _in_seconds(samples: Array, heading: str) -> Recorded:
    samples = samples[np.argsort(samples[:, 0], kind="stable")]
    samples = samples[np.concatenate([[True], np.diff(samples[:, 0]) > 0])]
    times, watts = samples[:, 0], samples[:, 1]
    found = re.search(r"\(\s*(\w+)\s*\)", heading)
    scale = UNITS.get(found[1], 1.0) if found else 1.0
    if times[0] * scale < UNIX_SINCE and len(times) > 1 and np.median(np.diff(times)) * scale < 0.9 / MONSOON_HZ:
        scale = 1.0
    return Recorded(times * scale, watts, bool(times[0] * scale >= UNIX_SINCE))


def find_shift(recorded: Recorded, windows: Sequence[EnergyWindow]) -> float:
    """Seconds to add to the trace's times so that it fits the measurement.

    It fits where power is high in work windows and low in idle ones, and most constant within each of them: candidates
    differ in power, so that high and low alone would not tell where a window begins.

    Raises:
        BenchError: there are no windows, the trace is shorter than they are, or it shows no such pattern.
    """
    stretches = sorted({(w.start, w.end, 1.0) for w in windows} | {(w.idle_start, w.idle_end, 0.0) for w in windows})
    if not stretches:
        raise BenchError("the measurement has no energy windows to lay a trace over; measure with --energy first")
    first, last = stretches[0][0], stretches[-1][1]
    earliest, latest = last - float(recorded.seconds[-1]), first - float(recorded.seconds[0])
    if earliest > latest:
        length = recorded.seconds[-1] - recorded.seconds[0]
        raise BenchError(
            f"the trace lasts {length:.1f} s, the measurement {last - first:.1f} s; start the meter before"
        )
    fit = _Fit(recorded, np.array(stretches))
    best, width, match, quality = (earliest + latest) / 2, (latest - earliest) / 2, -1.0, -1.0
    for _ in range(4):
        shifts = np.clip(np.linspace(best - width, best + width, STEPS + 1), earliest, latest)
        matches, constancy = fit(shifts)
        match = max(match, float(matches.max()))
        constancy = np.where(matches >= LEAST_MATCH, constancy, -1.0)
        if constancy.max() > quality:
            best, quality = float(shifts[constancy.argmax()]), float(constancy.max())
        width = 4 * width / STEPS
    if quality < 0:
        raise BenchError(
            f"the trace does not show the measurement's work and idling (correlation {match:.2f}, {LEAST_MATCH} is "
            "needed); if it is the right one, say when the meter was started: csv:FILE@2026-01-31T12:00:00"
        )
    return best


class _Fit:
    """How well a trace fits stretches (start, end, whether there was work), for many shifts at once."""

    def __init__(self, recorded: Recorded, stretches: Array) -> None:
        self.seconds, self.stretches = recorded.seconds, stretches
        steps, watts = np.diff(recorded.seconds), recorded.watts - recorded.watts.mean()
        integrals = (np.cumsum(steps * (w[1:] + w[:-1]) / 2) for w in (watts, watts**2))
        self.first, self.second = (np.concatenate([[0.0], integral]) for integral in integrals)

    def __call__(self, shifts: Array) -> tuple[Array, Array]:
        """Correlation of power with work, and the share of power's variance that lies between stretches."""
        lengths = (self.stretches[:, 1] - self.stretches[:, 0])[:, None]
        sums, squares = self._within(self.first, shifts), self._within(self.second, shifts)
        means, weights = sums / lengths, lengths / lengths.sum()
        off = means - (weights * means).sum(0)
        work = self.stretches[:, 2, None] - (weights * self.stretches[:, 2, None]).sum()
        between = (weights * off**2).sum(0)
        total = squares.sum(0) / lengths.sum() - (weights * means).sum(0) ** 2
        norms = np.sqrt(between * (weights * work**2).sum())
        matches = np.divide((weights * off * work).sum(0), norms, out=np.full(len(shifts), -1.0), where=norms > 1e-9)
        constancy = np.divide(between, total, out=np.zeros(len(shifts)), where=total > 1e-12)
        return matches, constancy

    def _within(self, integral: Array, shifts: Array) -> Array:
        """The increase of an integral over the trace in every stretch, (stretches, shifts)."""
        starts, ends = (np.interp(self.stretches[:, i, None] - shifts, self.seconds, integral) for i in (0, 1))
        gained: Array = ends - starts
        return gained
