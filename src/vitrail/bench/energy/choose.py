"""The meter that the user names, opened."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

from vitrail.bench.energy.battery import open_battery
from vitrail.bench.energy.csv_trace import CsvMeter
from vitrail.bench.energy.estimate import CpuTimeEstimate
from vitrail.bench.energy.jetson import open_ina
from vitrail.bench.energy.meter import Meter
from vitrail.bench.energy.nvml import open_nvml
from vitrail.bench.energy.rapl import RaplMeter
from vitrail.core.errors import BenchError, ConfigError

KINDS = "auto, rapl, nvml[:GPU], jetson, battery[:SERIAL], csv:FILE[@START], estimate:WATTS"


def open_meter(choice: str) -> Meter:
    """The meter that ``choice`` names, opened and tried.

    Args:
        choice: one of :data:`KINDS`. "auto" takes the first of RAPL and an INA sensor that can be read; it never takes
            NVML, which does not see the processor, and never falls back to an estimate.

    Raises:
        ConfigError: no such kind, or a bad value after the colon.
        BenchError: the meter is not there or may not be read, with the reason.
    """
    kind, _, value = choice.partition(":")
    if kind not in ("auto", "rapl", "nvml", "jetson", "battery", "csv", "estimate"):
        raise ConfigError(f"energy='{choice}' is no meter; there are {KINDS}")
    if value and kind in ("auto", "rapl", "jetson"):
        raise ConfigError(f"energy='{choice}': {kind} takes nothing after a colon; there are {KINDS}")
    match kind:
        case "auto":
            return _first_that_works()
        case "rapl":
            return RaplMeter()
        case "nvml":
            return open_nvml(_index(choice, value))
        case "jetson":
            return open_ina()
        case "battery":
            return open_battery(value)
        case "csv":
            return _trace(choice, value)
        case _:
            return _estimate(choice, value)


def _first_that_works() -> Meter:
    reasons = []
    for opens in (RaplMeter, open_ina):
        try:
            return opens()
        except BenchError as error:
            reasons.append(str(error).split(";")[0])
    raise BenchError(
        f"no energy meter works here: {'; '.join(reasons)}; give csv:FILE of an external meter, or estimate:WATTS "
        "that a busy core adds"
    )


def _index(choice: str, value: str) -> int:
    if value and not value.isdecimal():
        raise ConfigError(f"energy='{choice}' needs the number of a GPU, e.g. nvml:0")
    return int(value or 0)


def _estimate(choice: str, value: str) -> Meter:
    try:
        watts = float(value)
    except ValueError:
        watts = math.nan
    if not 0 < watts < 1000:
        raise ConfigError(
            f"energy='{choice}' needs the watts that a busy core adds, above 0 and below 1000: estimate:5"
        )
    return CpuTimeEstimate(watts)


def _trace(choice: str, value: str) -> Meter:
    name, _, start = value.rpartition("@") if "@" in value else (value, "", "")
    if not name:
        raise ConfigError(f"energy='{choice}' needs a file: csv:trace.csv")
    if not start:
        return CsvMeter(Path(name))
    try:
        when = datetime.fromisoformat(start)
    except ValueError as error:
        raise ConfigError(
            f"energy='{choice}': '{start}' is no time; write it as 2026-01-31T12:00:00 (UTC) or with +01:00"
        ) from error
    return CsvMeter(Path(name), (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
