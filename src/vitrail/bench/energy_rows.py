"""Rows of a measurement get their energy: at once, or afterwards from the trace of an external meter."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from vitrail.bench.energy import Meter, attach_trace, measure_energy, open_meter
from vitrail.bench.energy.csv_trace import CsvMeter
from vitrail.bench.energy.measure import Work
from vitrail.bench.protocol import BenchConfig
from vitrail.bench.results import BenchResult, append_results, latest_results
from vitrail.core.errors import BenchError
from vitrail.runs.run import Run

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


def attach_energy(runs: Sequence[Run], choice: str) -> list[BenchResult]:
    """Give the newest measurement of ``runs`` the energy of an external meter's trace, by the times that it noted.

    Nothing is measured again; the completed rows are added to each run's ``bench.jsonl``.

    Args:
        runs: that were measured together, with energy.
        choice: ``csv:FILE`` or ``csv:FILE@START``.

    Raises:
        BenchError: no row has windows, or the trace does not fit them.
    """
    meter = open_meter(choice)
    if not isinstance(meter, CsvMeter):
        raise BenchError(
            f"energy='{choice}' cannot be attached afterwards; only the trace of an external meter can: csv:FILE"
        )
    found = [(run, row) for run in runs for row in latest_results(run.bench) if row.energy and row.energy.windows]
    newest = max((str(row.environment.get("date", "")) for _, row in found), default="")
    kept = [(run, row, row.energy) for run, row in found if row.energy and row.environment.get("date", "") == newest]
    energies = attach_trace({str(index): energy for index, (_, _, energy) in enumerate(kept)}, meter)
    rows = [(run, replace(row, energy=energies[str(index)])) for index, (run, row, _) in enumerate(kept)]
    for run in runs:
        append_results(run.bench, [row for owner, row in rows if owner is run])
    return [row for _, row in rows]
