"""Latency, memory and energy of a comparison's entries, measured side by side."""

from __future__ import annotations

from pathlib import Path

from vitrail.bench import BenchConfig, BenchResult, Candidate, bench
from vitrail.compare.execute import entry_run
from vitrail.compare.plan_file import ComparePlan, Entry
from vitrail.compare.quantized import SIMULATED, executed_in
from vitrail.runs.bench import model_folder
from vitrail.runs.export import export_run, row_parts, stale_reason, unfit_reason
from vitrail.runs.run import Run
from vitrail.runtimes import find_runtime


def measure_entries(
    plan: ComparePlan, folder: Path, seed: int, config: BenchConfig, *, progress: bool = False
) -> dict[str, tuple[BenchResult, ...]]:
    """Measure every entry with one seed, all in turn; a runtime that cannot run an entry gives no row."""
    runs = [(entry, entry_run(folder, entry, seed)) for entry in plan.entries]
    candidates = [
        candidate
        for runtime in config.runtimes
        for entry, run in runs
        if (candidate := _candidate(entry, run, runtime)) is not None
    ]
    rows = bench(candidates, config, progress=progress)
    return {entry.name: tuple(row for row in rows if row.variant == entry.name) for entry in plan.entries}


def _candidate(entry: Entry, run: Run, runtime: str) -> Candidate | None:
    format = find_runtime(runtime).format
    if entry.quantization is not None:
        if format != "onnx" or executed_in(run) == SIMULATED:
            return None
        file = run.onnx("int8")
    elif format is None:
        file = run.weights
    else:
        file = run.exported(format)
        if not file.exists() or stale_reason(run, file):
            export_run(run, formats=(format,), variants=("float",))
    source = model_folder(run) if format is None else file
    return Candidate(
        runtime=runtime,
        variant=entry.name,
        source=source,
        file=file,
        image_shape=run.read().image_shape,
        row_parts=row_parts(run, file),
        failure=None if format is None else unfit_reason(run, file, runtime),
    )
