"""What ``vitrail run`` and ``vitrail demo`` have in common: options, and what is shown of every stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitrail.cli.bench import show_bench
from vitrail.cli.display import Display, figure, megabytes, number
from vitrail.cli.evaluate import show_evaluation
from vitrail.cli.export import show_export
from vitrail.cli.options import Groups
from vitrail.cli.quantize import QUANTIZE_NAMES, show_plan
from vitrail.cli.report import show_first_screen
from vitrail.cli.train import TRAIN_GROUPS, TRAIN_NAMES, show_training
from vitrail.report import write_report
from vitrail.runs.load import task_of
from vitrail.runs.run import Run
from vitrail.runs.whole_way import WholeWayConfig, summary, whole_way

WHOLE_WAY_NAMES = {f"train.{path}": name for path, name in TRAIN_NAMES.items()} | {
    f"calibration.{path}": name for path, name in QUANTIZE_NAMES.items()
}

WHOLE_WAY_GROUPS: Groups = {
    **{heading: tuple(f"train.{member}" for member in members) for heading, members in TRAIN_GROUPS.items()},
    "Options": (*(f"train.{member}" for member in TRAIN_GROUPS["Options"]), "calibration.quantization.weight_bits"),
    "More options: quantisation": ("calibration",),
    "More options: measurement": ("bench",),
}


def run_whole_way(shown: Display, config: WholeWayConfig, folder: Path, *, resume: bool, overwrite: bool) -> Run:
    """Go through all stages; show a heading, the table and the seconds of each, and the summary at the end."""
    show: dict[str, Callable[[Display, Any], None]] = {
        "Train": show_training,
        "Quantize": show_plan,
        "Export": show_export,
        "Evaluate": show_evaluation,
        "Bench": show_bench,
        "Report": lambda shown, path: shown.say(f"Written: {path}"),
    }
    run = whole_way(
        Run(folder),
        config,
        report=write_report,
        resume=resume,
        overwrite=overwrite,
        progress=shown.progress,
        stage=shown.stage,
        finished=lambda name, result: show[name](shown, result),
        skipped=lambda name, seconds: shown.say(f"{name}: done before, in {seconds} s"),
    )
    _show_summary(shown, run, summary(run))
    return run


def _show_summary(shown: Display, run: Run, facts: dict[str, Any]) -> None:
    """The final table, and where the report is."""
    score = task_of(run).scores[0]
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
    shown.result(facts | {"summary": show_first_screen(shown, run)})
