"""Robustness of one run or several, for ``vitrail evaluate --robustness``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vitrail.cli.display import Display, percent
from vitrail.core.run import Run
from vitrail.evaluation import RobustnessConfig, robustness_table, write_robustness
from vitrail.report import robustness_pictures, runs_by_recipe
from vitrail.runs.load import load_task
from vitrail.training import load_run_data

TITLES: dict[Literal["top1", "consistency"], str] = {
    "top1": "Top-1, mean over all strengths",
    "consistency": "Same class as untouched, mean over all strengths",
}


def evaluate_robustness(shown: Display, folders: Sequence[Path], config: RobustnessConfig) -> None:
    """Measure every run, and show all in two tables."""
    runs = [Run.open(folder) for folder in folders]
    for run in runs:
        write_robustness(run, load_task(run), load_run_data(run).held_out, config, progress=shown.progress)
        pictures = robustness_pictures(run)
        shown.say(f"{run.folder}: wrote {run.robustness.name} and {len(pictures)} pictures in {run.figures.name}/")
    grouped = runs_by_recipe(runs)
    for what, title in TITLES.items():
        head, rows = robustness_table(grouped, what)
        shown.table(title, head, [(name, *map(percent, shares)) for name, shares in rows])
    shown.result(grouped)
