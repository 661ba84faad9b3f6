"""The energy of what was timed, by a meter of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from vitrail.bench.energy import Meter, measure_energy, open_meter
from vitrail.bench.energy.windows import Work
from vitrail.bench.protocol import BenchConfig
from vitrail.bench.results import BenchResult
from vitrail.core.errors import BenchError

Rows = dict[str, BenchResult]
"""Key of what is measured -> its row so far."""

Calls = dict[str, Callable[[], object]]
"""Key of what is measured -> what runs one batch of it."""


def add_energy(
    rows: Rows,
    calls: Calls,
    meter: Meter,
    config: BenchConfig,
    tell: Callable[[str, float], None],
) -> None:
    """Energy of every candidate that could be timed."""
    work = {
        key: Work(call, rows[key].batch_size) for key, call in calls.items() if rows[key].latency_ms_median is not None
    }
    share = 1 / (config.energy_rounds * (len(work) + 1))
    energies = measure_energy(
        work,
        meter,
        rounds=config.energy_rounds,
        window_seconds=config.energy_seconds,
        seed=config.seed,
        on_window=lambda: tell(f"energy ({meter.source})", share),
    )
    rows |= {key: replace(rows[key], energy=energy) for key, energy in energies.items()}


def open_own_meter(choice: str) -> Meter:
    """The meter that ``choice`` names, if it measures the machine that the candidates run on.

    Raises:
        BenchError: it measures another one, or there is no such meter.
    """
    meter = open_meter(choice)
    if meter.place and "ANDROID_ROOT" not in os.environ:
        meter.close()
        raise BenchError(
            f"energy='{choice}' measures {meter.place}, and the candidates run on this machine; run vitrail on the "
            "device, or measure this machine"
        )
    return meter
