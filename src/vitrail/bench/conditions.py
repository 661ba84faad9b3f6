"""Conditions of a measurement: other programs, clock, heat; and the cores that it may use.

Everything is read where the system offers it and left out where it does not; virtual machines mostly offer load alone.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from vitrail.core.errors import BenchError

SYS = Path("/sys")
BUSY_CORES = 0.25
"""Share of a core that other programs may use before a measurement warns."""

SLOWER_CLOCK = 0.9
"""A clock that ends below this share of its first value was throttled, or saves power."""

DRIFTED = 0.1
"""Relative difference of the last quarter of runs from the first, above which a measurement warns."""

FEW_RUNS = 50


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Conditions during a measurement; None where the system does not tell.

    Attributes:
        load_before: mean number of processes that were ready to run in the minute before.
        other_cores: mean number of cores that other programs used during the measurement.
        frequency_mhz: mean clock of the cores, before and after.
        governor: policy that sets the clock.
        temperature_c: temperature of the hottest sensor, before and after.
        num_throttled: number of times that cores were slowed down because of heat.
    """

    load_before: float | None = None
    other_cores: float | None = None
    frequency_mhz: tuple[float, float] | None = None
    governor: str | None = None
    temperature_c: tuple[float, float] | None = None
    num_throttled: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Sensors:
    wall: float
    busy: float
    own: float
    frequency_mhz: float | None
    temperature_c: float | None
    num_throttled: int | None


def watch(root: Path = SYS) -> Callable[[], Conditions]:
    """Read the sensors now; the function that is returned reads them again and gives the conditions in between."""
    load = _load()
    before = _read_sensors(root)

    def tell() -> Conditions:
        after = _read_sensors(root)
        wall = max(after.wall - before.wall, 1e-9)
        return Conditions(
            load_before=load,
            other_cores=round(max(0.0, (after.busy - before.busy) - (after.own - before.own)) / wall, 2),
            frequency_mhz=_pair(before.frequency_mhz, after.frequency_mhz),
            governor=_first_text(root.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")),
            temperature_c=_pair(before.temperature_c, after.temperature_c),
            num_throttled=_increase(before.num_throttled, after.num_throttled),
        )

    return tell


def warnings_of(conditions: Conditions, drift: float | None, num_runs: int) -> tuple[str, ...]:
    """Disturbances that a reader of the figures should know, each in a sentence."""
    found = []
    if conditions.other_cores is not None and conditions.other_cores > BUSY_CORES:
        found.append(f"other programs used {conditions.other_cores:.1f} cores meanwhile")
    if conditions.frequency_mhz and conditions.frequency_mhz[1] < SLOWER_CLOCK * conditions.frequency_mhz[0]:
        before, after = conditions.frequency_mhz
        found.append(f"the clock fell from {before:.0f} to {after:.0f} MHz")
    if conditions.num_throttled:
        found.append(f"heat slowed cores down {conditions.num_throttled} times")
    if drift is not None and abs(drift - 1) > DRIFTED:
        found.append(f"the last quarter of runs took {drift:.2f} times the first quarter's processor time")
    if num_runs < FEW_RUNS:
        found.append(f"only {num_runs} timed runs; raise min_runs or budget_seconds")
    return tuple(found)


def drift_of(times: Sequence[float]) -> float | None:
    """Median of the last quarter over that of the first; None for fewer than eight."""
    quarter = len(times) // 4
    if quarter < 2:
        return None
    first = statistics.median(times[:quarter])
    return statistics.median(times[-quarter:]) / first if first > 0 else None


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Hold this process, all its threads and what they start, to some cores; to all of them if none are given.

    Raises:
        BenchError: the system cannot do it, or there are no such cores.
    """
    if not cores:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise BenchError("cores cannot be chosen on this system; leave cores out")
    allowed = os.sched_getaffinity(0)
    if not set(cores) <= allowed:
        have = ", ".join(map(str, sorted(allowed)))
        raise BenchError(f"cores={' '.join(map(str, cores))} are not all to be had; this process may use {have}")
    try:
        _set_affinity(set(cores))
        yield
    finally:
        _set_affinity(allowed)


def _set_affinity(cores: set[int]) -> None:
    # A process's affinity is that of its first thread alone; pools that exist already have to be told one by one.
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            continue  # it has ended since


def _read_sensors(root: Path) -> _Sensors:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # What guests use is in user already, and stolen time is other machines'.
    counted = (
        sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0) - getattr(times, "steal", 0.0)
    )
    clocks = _numbers(root.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    heat = _numbers(root.glob("class/thermal/thermal_zone*/temp"))
    throttled = _numbers(root.glob("devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"))
    return _Sensors(
        wall=time.perf_counter(),
        busy=counted - idle,
        own=time.process_time(),
        frequency_mhz=statistics.fmean(clocks) / 1e3 if clocks else None,
        temperature_c=max(heat) / 1e3 if heat else None,
        num_throttled=int(sum(throttled)) if throttled else None,
    )


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _increase(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _pair(before: float | None, after: float | None) -> tuple[float, float] | None:
    return None if before is None or after is None else (round(before, 1), round(after, 1))


def _numbers(files: Iterator[Path]) -> list[float]:
    found = []
    for file in files:
        try:
            found.append(float(file.read_text()))
        except (OSError, ValueError):
            continue
    return found


def _first_text(files: Iterator[Path]) -> str | None:
    for file in files:
        try:
            return file.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            continue
    return None
