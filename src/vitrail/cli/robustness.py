"""Robustness of one run or several, for ``vitrail evaluate --robustness``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vitrail.cli.display import Display, percent
from vitrail.evaluation import RobustnessConfig, robustness_table
from vitrail.runs.robustness import measure_run_robustness, robustness_by_recipe
from vitrail.runs.run import Run

TITLES: dict[Literal["top1", "consistency"], str] = {
    "top1": "Top-1, mean over all strengths",
    "consistency": "Same class as untouched, mean over all strengths",
}


def evaluate_robustness(shown: Display, folders: Sequence[Path], config: RobustnessConfig) -> None:
    """Measure every run, and show all in two tables."""
    runs = [Run.open(folder) for folder in folders]
    for run in runs:
        measure_run_robustness(run, config, progress=shown.progress)
        shown.say(f"{run.folder}: wrote {run.robustness.name} and its pictures in {run.figures.name}/")
    grouped = robustness_by_recipe(runs)
    for what, title in TITLES.items():
        head, rows = robustness_table(grouped, what)
        shown.table(title, head, [(name, *map(percent, shares)) for name, shares in rows])
    shown.result(grouped)
