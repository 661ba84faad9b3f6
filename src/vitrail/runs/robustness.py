"""``robustness.json``: a run's accuracy under shifts, rotations, corruptions and other changes, with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitrail.core.errors import RunError
from vitrail.core.files import write_json
from vitrail.core.paths import typed_path
from vitrail.evaluation import RobustnessConfig, measure_robustness
from vitrail.figures.robustness import robustness_figures
from vitrail.figures.save import save_figures
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task
from vitrail.runs.run import Run, writes
from vitrail.runs.schema import VERSION, RobustnessFile, read_file


@writes
def measure_run_robustness(
    run: Run, config: RobustnessConfig | None = None, *, progress: bool = False
) -> dict[str, Any]:
    """Measure a run's weights on its held-out images, and write ``run.robustness`` and the pictures.

    Returns:
        the contents of ``run.robustness``.

    Raises:
        RunError: the task is not classification.
    """
    task = load_task(run)
    if not task.per_image:
        raise RunError(f"run {run.folder} gives images no single class; robustness is only measured for classification")
    images = load_run_data(run).held_out
    values = {"version": VERSION}
    values |= measure_robustness(task, images, run.read().preprocessing, config, progress=progress)
    write_json(run.robustness, values)
    figures = robustness_figures({run.folder.name: [values]})
    save_figures({f"robustness-{group}": figure for group, figure in figures.items()}, run.figures)
    return values


def read_robustness(run: Run) -> dict[str, Any]:
    """The contents of ``run.robustness``.

    Raises:
        RunError: robustness has not been measured.
        VitrailError: the file is not a robustness file.
    """
    if not run.robustness.exists():
        raise RunError(
            f"run {run.folder} has no {run.robustness.name}; "
            f"make it with: vitrail evaluate {typed_path(run.folder)} --robustness"
        )
    remedy = f"measure again with: vitrail evaluate {typed_path(run.folder)} --robustness"
    return read_file(RobustnessFile, run.robustness, remedy).model_dump(mode="json")


def robustness_by_recipe(runs: Sequence[Run]) -> dict[str, list[Mapping[str, Any]]]:
    """Robustness of runs, in groups that differ only in their seed.

    A group has the name of its first folder, or of the parent if the folder is ``seed-...``.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        recipe = {k: v for k, v in run.read().training.to_dict().items() if k != "seed"}
        groups.setdefault(repr(recipe), []).append(run)
    named: dict[str, list[Mapping[str, Any]]] = {}
    for several in groups.values():
        folder = several[0].folder
        name = folder.parent.name if folder.name.startswith("seed-") else folder.name
        label = name if name not in named else str(folder)
        named[label] = [read_robustness(run) for run in several]
    return named
