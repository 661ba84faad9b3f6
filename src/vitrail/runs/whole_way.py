"""All stages in order: train, quantise, export, evaluate, measure and report."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from vitrail.bench import BenchConfig, BenchResult, latest_results
from vitrail.core.config import convert_fields
from vitrail.core.errors import RunError
from vitrail.runs.bench import bench_run
from vitrail.runs.evaluate import WEIGHTS, evaluate_run
from vitrail.runs.export import export_run
from vitrail.runs.file_results import accuracy_key
from vitrail.runs.load import task_of
from vitrail.runs.quantize import CalibrationConfig, quantize_run
from vitrail.runs.run import Run
from vitrail.runs.schema import read_evaluation
from vitrail.runs.stage_times import following, seconds_left
from vitrail.runs.train import train
from vitrail.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class WholeWayConfig:
    """The configuration of every stage.

    Attributes:
        train: configuration of the training.
        calibration: configuration of the quantisation.
        bench: configuration of the measurement.
    """

    train: TrainConfig = field(default_factory=TrainConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    bench: BenchConfig = field(default_factory=BenchConfig)

    def __post_init__(self) -> None:
        convert_fields(self)


def whole_way(
    run: Run,
    config: WholeWayConfig,
    *,
    report: Callable[[Run], Any],
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    stage: Callable[[str, float | None], AbstractContextManager[None]] = lambda _heading, _left: nullcontext(),
    finished: Callable[[str, Any], None] = lambda _name, _result: None,
    skipped: Callable[[str, float], None] = lambda _name, _seconds: None,
) -> Run:
    """Run all stages; each is noted in ``run.json`` when it is done.

    Args:
        run: run folder.
        config: configuration of every stage.
        report: function of the last stage, such as :func:`vitrail.report.write_report`.
        resume: skip finished stages, and continue the training where it stopped.
        overwrite: delete the run in the folder.
        progress: show bars.
        stage: function from the heading of a stage, e.g. "2/6 Quantize", and the seconds that it and those behind it
            will take (None where nobody knows), to its context manager.
        finished: callback with the name and the result of a stage.
        skipped: callback with the name and the earlier duration in seconds of a skipped stage.

    Raises:
        VitrailError: a stage failed; the results of the stages before it are kept.
    """
    follows = following(run, config.calibration, config.bench)
    steps: dict[str, Callable[[], Any]] = {
        "Train": lambda: train(
            config.train, run=run, resume=resume, overwrite=overwrite, progress=progress, follows=follows
        ),
        "Quantize": lambda: quantize_run(run, config.calibration, progress=progress),
        "Export": lambda: export_run(run, progress=progress),
        "Evaluate": lambda: evaluate_run(run, progress=progress),
        "Bench": lambda: bench_run(run, config.bench, progress=progress),
        "Report": lambda: report(run),
    }
    measured: dict[str, float] = {}
    for number, (name, step) in enumerate(steps.items(), start=1):
        done = finished_stages(run) if resume else {}
        if name in done and name != "Train":
            measured[name] = done[name]
            skipped(name, done[name])
            continue
        with run.writing():
            left = None if name == "Train" else seconds_left(run, config.calibration, config.bench, measured)
            with stage(f"{number}/{len(steps)} {name}", left):
                start = time.perf_counter()
                finished(name, step())
            measured[name] = round(time.perf_counter() - start, 1)
            run.update(stages=finished_stages(run) | {name: measured[name]})
    return run


def finished_stages(run: Run) -> dict[str, float]:
    """Stage -> seconds, from ``run.json``."""
    return run.read().stages if run.description.exists() else {}


def summary(run: Run) -> dict[str, Any]:
    """Accuracy, size and speed of every file in every runtime.

    Raises:
        RunError: a stage is missing.
    """
    evaluation = read_evaluation(run)
    if evaluation is None or not run.bench_rows.exists():
        raise RunError(f"run {run.folder} is incomplete; finish it with --resume")
    score = task_of(run).scores[0].name
    values = {name: report[score] for name, report in evaluation["reports"].items()}
    return {
        "run": str(run.folder),
        "report": str(run.report_page),
        score: values.get(WEIGHTS),
        "seconds": finished_stages(run),
        "files": [_summary_row(result, score, values) for result in latest_results(run.bench_rows)],
    }


def _summary_row(result: BenchResult, score: str, values: dict[str, float | None]) -> dict[str, Any]:
    return {
        "file": result.file,
        "runtime": result.runtime,
        "variant": result.variant,
        score: values.get(accuracy_key(result)),
        "size_bytes": result.size_bytes,
        "latency_ms": result.latency_ms_median,
        "latency_ratio": result.latency_ratio,
    }
