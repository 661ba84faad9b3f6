"""Every stage one after the other, for ``vitrail run`` and ``vitrail demo``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitrail.bench import BenchConfig, BenchResult, bench_run, latest_results
from vitrail.bench.quantized_run import CalibrationConfig, quantize_run
from vitrail.cli.bench import show_bench
from vitrail.cli.display import Display, figure, megabytes, number
from vitrail.cli.evaluate import WEIGHTS, show_evaluation, write_evaluation
from vitrail.cli.export import show_export
from vitrail.cli.options import Groups
from vitrail.cli.quantize import show_plan
from vitrail.cli.train import TRAIN_GROUPS, TRAIN_NAMES, show_training
from vitrail.core.errors import RunError
from vitrail.core.files import read_json
from vitrail.core.run import Run
from vitrail.export import export_run
from vitrail.report import write_report
from vitrail.report.entries import accuracy_key
from vitrail.tasks import task_of
from vitrail.training import TrainConfig, train


@dataclass(frozen=True, kw_only=True)
class WholeWayConfig:
    """What every stage is told.

    Attributes:
        train: how the model is trained.
        calibration: how it is quantised.
        bench: how its files are measured.
    """

    train: TrainConfig = field(default_factory=TrainConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    bench: BenchConfig = field(default_factory=BenchConfig)


WHOLE_WAY_NAMES = {f"train.{path}": name for path, name in TRAIN_NAMES.items()}

WHOLE_WAY_GROUPS: Groups = {
    **{heading: tuple(f"train.{member}" for member in members) for heading, members in TRAIN_GROUPS.items()},
    "Options": (*(f"train.{member}" for member in TRAIN_GROUPS["Options"]), "calibration.quantization.weight_bits"),
    "More options: quantisation": ("calibration",),
    "More options: measurement": ("bench",),
}

Step = Callable[[], None]


def whole_way(shown: Display, config: WholeWayConfig, folder: Path, *, resume: bool, overwrite: bool) -> Run:
    """Train, quantise, export, evaluate, measure and report; each stage is noted in ``run.json`` when it is done.

    Args:
        shown: receives a heading and the seconds of every stage, and its table.
        config: what every stage is told.
        folder: of the run.
        resume: leave out the stages that are done, continue the training where it stopped.
        overwrite: delete a run that is in the folder.

    Raises:
        VitrailError: a stage failed; what the stages before it made is kept.
    """
    run = Run(folder)
    steps: dict[str, Step] = {
        "Train": lambda: _train(shown, config, run, resume=resume, overwrite=overwrite),
        "Quantize": lambda: show_plan(shown, quantize_run(run, config.calibration, progress=shown.progress)),
        "Export": lambda: show_export(shown, export_run(run)),
        "Evaluate": lambda: show_evaluation(shown, write_evaluation(run, progress=shown.progress)),
        "Bench": lambda: show_bench(shown, bench_run(run, config.bench, progress=shown.progress)),
        "Report": lambda: shown.say(f"Written: {write_report(run)}"),
    }
    for number_, (name, step) in enumerate(steps.items(), start=1):
        done = finished_stages(run) if resume else {}
        if name in done and name != "Train":
            shown.say(f"{name}: done before, in {done[name]} s")
            continue
        with shown.stage(f"{number_}/{len(steps)} {name}"):
            start = time.perf_counter()
            step()
        run.update(stages=finished_stages(run) | {name: round(time.perf_counter() - start, 1)})
    return run


def finished_stages(run: Run) -> dict[str, float]:
    """Stage -> seconds, from ``run.json``."""
    stages: dict[str, float] = run.read().get("stages", {}) if run.description.exists() else {}
    return stages


def _train(shown: Display, config: WholeWayConfig, run: Run, *, resume: bool, overwrite: bool) -> None:
    train(config.train, run=run.folder, resume=resume, overwrite=overwrite, progress=shown.progress)
    show_training(shown, run)


def summary(run: Run) -> dict[str, Any]:
    """The figures that matter: accuracy, size and speed of every file in every runtime.

    Raises:
        RunError: a stage is missing.
    """
    if not run.evaluation.exists() or not run.bench.exists():
        raise RunError(f"run {run.folder} is incomplete; finish it with --resume")
    score = task_of(run.read()).scores[0].name
    values = {name: report[score] for name, report in read_json(run.evaluation)["reports"].items()}
    rows = [_summary_row(result, score, values) for result in latest_results(run.bench)]
    return {
        "run": str(run.folder),
        "report": str(run.report),
        score: values[WEIGHTS],
        "seconds": finished_stages(run),
        "files": rows,
    }


def _summary_row(result: BenchResult, score: str, values: dict[str, float]) -> dict[str, Any]:
    return {
        "file": result.file,
        "runtime": result.runtime,
        "variant": result.variant,
        score: values.get(accuracy_key(result)),
        "size_bytes": result.size_bytes,
        "latency_ms": result.latency_ms_median,
        "latency_ratio": result.latency_ratio,
    }


def show_summary(shown: Display, run: Run) -> None:
    """The final table, and where the report is."""
    facts, score = summary(run), task_of(run.read()).scores[0]
    shown.table(
        "What you have now",
        ("file", "runtime", score.title, "size", "latency", "ratio to PyTorch"),
        [
            (
                row["file"],
                row["runtime"],
                figure(row[score.name], percentage=score.percent),
                megabytes(row["size_bytes"]),
                number(row["latency_ms"], 2, " ms"),
                number(row["latency_ratio"], 2, " x"),
            )
            for row in facts["files"]
        ],
    )
    shown.say(f"Report: {facts['report']}")
    shown.result(facts)
