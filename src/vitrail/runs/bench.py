"""Measurement of the files of one or several runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from vitrail.bench import BenchConfig, BenchResult, Candidate, Clock, append_results, bench, latest_results
from vitrail.bench.energy import attach_trace, open_meter
from vitrail.bench.energy.csv_trace import CsvMeter
from vitrail.core.errors import BenchError, UnknownNameError
from vitrail.runs.export import row_parts, unfit_reason
from vitrail.runs.run import Run
from vitrail.runtimes import ModelFolder, find_runtime


def run_candidates(run: Run, runtimes: Sequence[str]) -> list[Candidate]:
    """The candidates of a run: each runtime with each file that it takes.

    A file of other weights, or one that was wrong in the runtime when it was exported, is a candidate with a failure,
    see :func:`~vitrail.runs.export.unfit_reason`.
    """
    candidates = []
    for runtime in runtimes:
        format = find_runtime(runtime).format
        if format is None:
            candidates.append(Candidate(runtime=runtime, variant="float", source=model_folder(run), file=run.weights))
            continue
        for variant in run.variants() if format == "onnx" else ["float"]:
            file = run.exported(format, variant)
            given: dict[str, Any] = {"row_parts": row_parts(run, file), "failure": unfit_reason(run, file, runtime)}
            candidates.append(Candidate(runtime=runtime, variant=variant, source=file, file=file, **given))
    return [replace(candidate, image_shape=run.read().image_shape) for candidate in candidates]


def model_folder(run: Run) -> ModelFolder:
    """A run's weights in the form for the PyTorch runtimes."""
    return ModelFolder(run.folder, "vitrail.runs.load:open_module")


def bench_run(
    run: Run, config: BenchConfig | None = None, *, progress: bool = False, clock: Clock | None = None
) -> list[BenchResult]:
    """:func:`bench_runs` of a single run."""
    return bench_runs([run], config, progress=progress, clock=clock)


def bench_runs(
    runs: Sequence[Run], config: BenchConfig | None = None, *, progress: bool = False, clock: Clock | None = None
) -> list[BenchResult]:
    """Measure every file of the runs in every runtime that takes it, side by side; each run gets its own rows.

    Eager and compiled PyTorch take the run itself; ONNX Runtime and OpenVINO take every ``model*.onnx``. The float and
    the int8 file are always candidates: the rows of a missing file name the command that makes it.

    Raises:
        RunError: a run is not complete.
        UnknownNameError: two runs have the same name; see also :func:`~vitrail.bench.bench`.
    """
    config = config or BenchConfig()
    names = [run.folder.resolve().name for run in runs]
    if len(set(names)) < len(names):
        raise UnknownNameError(f"runs {', '.join(names)} have the same name; rename a folder, or measure them apart")
    candidates, owners = [], []
    for run, name in zip(runs, names, strict=True):
        for candidate in run_candidates(run, config.runtimes):
            candidates.append(replace(candidate, run=name) if len(runs) > 1 else candidate)
            owners += [run] * (len(config.threads) * len(config.batch_size))
    with _writing(runs):
        results = bench(candidates, config, progress=progress, clock=clock)
        for run in runs:
            append_results(run.bench_rows, [row for row, owner in zip(results, owners, strict=True) if owner is run])
    return results


@contextmanager
def _writing(runs: Sequence[Run]) -> Iterator[None]:
    with ExitStack() as locks:
        for run in runs:
            locks.enter_context(run.writing())
        yield


def attach_energy(runs: Sequence[Run], choice: str) -> list[BenchResult]:
    """Add the energy from an external meter's trace to the newest measurement of ``runs``, by its recorded times.

    Nothing is measured again; the completed rows are added to each run's ``bench.jsonl``.

    Args:
        runs: runs that were measured together, with energy.
        choice: ``csv:FILE`` or ``csv:FILE@START``.

    Raises:
        BenchError: no row has windows, or the trace does not fit them.
    """
    meter = open_meter(choice)
    if not isinstance(meter, CsvMeter):
        raise BenchError(
            f"energy='{choice}' cannot be attached afterwards; only the trace of an external meter can: csv:FILE"
        )
    found = [(run, row) for run in runs for row in latest_results(run.bench_rows) if row.energy and row.energy.windows]
    newest = max((str(row.environment.get("date", "")) for _, row in found), default="")
    kept = [(run, row, row.energy) for run, row in found if row.energy and row.environment.get("date", "") == newest]
    energies = attach_trace({str(index): energy for index, (_, _, energy) in enumerate(kept)}, meter)
    rows = [(run, replace(row, energy=energies[str(index)])) for index, (run, row, _) in enumerate(kept)]
    with _writing(runs):
        for run in runs:
            append_results(run.bench_rows, [row for owner, row in rows if owner is run])
    return [row for _, row in rows]
