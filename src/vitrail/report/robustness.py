"""Robustness of runs: pictures in their folders, and several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitrail.core.run import Run
from vitrail.evaluation import read_robustness
from vitrail.figures.robustness import robustness_figures
from vitrail.figures.save import save_figures


def robustness_pictures(run: Run) -> list[Path]:
    """Draw a run's ``robustness.json`` into its figures; returns the paths."""
    figures = robustness_figures({run.folder.name: [read_robustness(run)]})
    return save_figures({f"robustness-{group}": figure for group, figure in figures.items()}, run.figures, dpi=110)


def runs_by_recipe(runs: Sequence[Run]) -> dict[str, list[Mapping[str, Any]]]:
    """Robustness of runs, those that differ in their seed alone together.

    A group is named by its first folder, or by the folder above where that is called after a seed.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        recipe = {k: v for k, v in run.read().get("training", {}).items() if k != "seed"}
        groups.setdefault(repr(recipe), []).append(run)
    named: dict[str, list[Mapping[str, Any]]] = {}
    for several in groups.values():
        folder = several[0].folder
        name = folder.parent.name if folder.name.startswith("seed-") else folder.name
        label = name if name not in named else str(folder)
        named[label] = [read_robustness(run) for run in several]
    return named
