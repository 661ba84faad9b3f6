"""Energy an image: rounds of one idle window and one work window of every candidate.

A window lasts as long as the meter needs for about a percent. In every round the power of the idle window is taken off
each candidate's power, so that a machine that warms up or does other things now and then spoils a round and not the
comparison; the spread over the rounds gives the confidence interval.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from vitrail.bench.energy.csv_trace import CsvMeter
from vitrail.bench.energy.meter import Mark, Meter
from vitrail.bench.energy.result import Energy, EnergyWindow
from vitrail.bench.protocol import reason_of
from vitrail.core.errors import BenchError

T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t, two-sided 95 %, for 1, 2, ... degrees of freedom; beyond the last, the last is a little too wide."""


class Work(NamedTuple):
    """The work of a candidate in a window: a call of ``run`` processes ``num_images`` images."""

    run: Callable[[], object]
    num_images: int


class _Window(NamedTuple):
    start: Mark
    end: Mark
    num_images: int
    idle_start: Mark
    idle_end: Mark

    def times(self) -> EnergyWindow:
        marks = (self.start.unix_s, self.end.unix_s), (self.idle_start.unix_s, self.idle_end.unix_s)
        return EnergyWindow(*marks[0], self.num_images, *marks[1])


def measure_energy(
    candidates: Mapping[str, Work],
    meter: Meter,
    *,
    rounds: int = 5,
    window_seconds: float | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    on_window: Callable[[], None] | None = None,
) -> dict[str, Energy]:
    """Measure all candidates with one meter.

    Args:
        candidates: name -> the work of the candidate, already warm.
        meter: see :func:`~vitrail.bench.energy.choose.open_meter`; the caller closes it.
        rounds: windows of every candidate.
        window_seconds: length of a window; what the meter asks for by default.
        seed: seed of the order within rounds.
        clock, sleep: functions of time, which tests replace.
        on_window: called after every window, idle ones too.

    Returns:
        one result a candidate. Where the meter vanishes or a candidate raises, the result has its ``failure`` set.
    """
    spans = _Spans(meter, window_seconds or meter.window_seconds, clock, on_window or (lambda: None))
    windows: dict[str, list[_Window]] = {name: [] for name in candidates}
    failures: dict[str, str] = {}
    order = random.Random(seed)

    def idle() -> int:
        sleep(min(spans.seconds, 0.05))
        return 0

    try:
        for _ in range(rounds):
            idle_start, idle_end, _nothing = spans.take(idle)
            alive = [name for name in candidates if name not in failures]
            for name in order.sample(alive, len(alive)):
                try:
                    start, end, images = spans.take(_counted(candidates[name]))
                except BenchError:
                    raise
                except Exception as error:  # noqa: BLE001 (whatever a runtime raises becomes the candidate's row)
                    failures[name] = reason_of(error)
                    continue
                windows[name].append(_Window(start, end, images, idle_start, idle_end))
    except BenchError as error:
        failures |= {name: reason_of(error) for name in candidates if name not in failures}
    return _results(meter, windows, failures)


@dataclass(frozen=True)
class _Spans:
    """Stretches of ``seconds`` of one kind of work, between two marks."""

    meter: Meter
    seconds: float
    clock: Callable[[], float]
    tell: Callable[[], None]

    def take(self, step: Callable[[], int]) -> tuple[Mark, Mark, int]:
        """Work until the meter shows it, then through one window; the marks, and what its steps add up to."""
        _repeat(step, self.meter.settle_seconds, self.clock)
        start = self.meter.mark()
        done = _repeat(step, self.seconds, self.clock)
        end = self.meter.mark()
        self.tell()
        return start, end, done


def _counted(work: Work) -> Callable[[], int]:
    def step() -> int:
        work.run()
        return work.num_images

    return step


def _repeat(step: Callable[[], int], seconds: float, clock: Callable[[], float]) -> int:
    """Do ``step`` for so long, at least once; returns what the steps add up to."""
    start, total = clock(), step()
    while clock() - start < seconds:
        total += step()
    return total


def _results(meter: Meter, windows: Mapping[str, Sequence[_Window]], failures: Mapping[str, str]) -> dict[str, Energy]:
    lost = ""
    if isinstance(meter, CsvMeter):
        try:
            meter.align([window.times() for many in windows.values() for window in many])
        except BenchError as error:
            lost = reason_of(error)
    return {name: _result(meter, many, failures.get(name) or lost) for name, many in windows.items()}


def _result(meter: Meter, windows: Sequence[_Window], failure: str) -> Energy:
    empty = Energy(source=meter.source, reads=meter.reads, windows=tuple(window.times() for window in windows))
    if failure or not windows:
        return replace(empty, failure=failure or "no energy windows; raise energy_rounds")
    try:
        energies = [(meter.energy_j(w.start, w.end), meter.energy_j(w.idle_start, w.idle_end)) for w in windows]
    except BenchError as error:
        return replace(empty, failure=reason_of(error))
    return replace(empty, **_figures(energies, empty.windows))


def _figures(energies: Iterable[tuple[float, float]], windows: Sequence[EnergyWindow]) -> dict[str, Any]:
    """Values of :class:`Energy` from (joules working, joules idling) of every window."""
    powers, idles, values = [], [], []
    for (busy, idle), window in zip(energies, windows, strict=True):
        seconds = window.end - window.start
        powers.append(busy / seconds)
        idles.append(idle / (window.idle_end - window.idle_start))
        values.append((busy - idles[-1] * seconds) / window.num_images * 1e3)
    figures: dict[str, Any] = {"power_w": statistics.fmean(powers), "idle_power_w": statistics.fmean(idles)}
    mean, interval = confidence(values)
    low = interval[0] if interval else mean
    if low <= 0:
        text = f"{low:.2g} to {interval[1]:.2g} mJ" if interval else f"{mean:.2g} mJ"
        return figures | {
            "failure": f"cannot be told from idling ({text} an image); raise energy_seconds or energy_rounds"
        }
    return figures | {"energy_mj": mean, "ci95_mj": interval}


def confidence(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Mean, and its 95 % confidence interval by Student's t; no interval for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    half = T_95[min(len(values) - 1, len(T_95)) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, (mean - half, mean + half)


def attach_trace(energies: Mapping[str, Energy], meter: CsvMeter) -> dict[str, Energy]:
    """Results from the windows that an earlier measurement noted, and the trace of an external meter.

    Raises:
        BenchError: the trace cannot be read or does not fit the windows.
    """
    meter.align([window for energy in energies.values() for window in energy.windows])
    results = {}
    for name, energy in energies.items():
        windows = [
            _Window(Mark(w.start), Mark(w.end), w.num_images, Mark(w.idle_start), Mark(w.idle_end))
            for w in energy.windows
        ]
        results[name] = _result(meter, windows, "")
    return results
