"""Training of a comparison's runs: resumable, and divisible among machines."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from vitrail.compare.plan import Cell, ComparePlan
from vitrail.core.errors import ConfigError, RunError
from vitrail.core.files import atomic_path
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, eval_loader, load_data
from vitrail.evaluation import RobustnessConfig, read_robustness, write_robustness
from vitrail.tasks import load_task
from vitrail.training import TrainConfig, differing_fields, is_finished, train

Job = tuple[Cell, int]
"""A model and a seed."""


def job_list(plan: ComparePlan) -> list[Job]:
    """All models with the first seed, then all with the second, so that a comparison cut short has whole seeds."""
    return [(cell, seed) for seed in plan.seeds for cell in plan.cells]


def shard_of(jobs: list[Job], shard: str) -> list[Job]:
    """The share of one machine of several, e.g. ``2/3``; together the shares are the whole, without overlap.

    Raises:
        ConfigError: it is not i/n with 1 <= i <= n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise ConfigError(f"shard '{shard}' is not i/n with i from 1 to n; 1/2 and 2/2 are the two of two machines")
    return jobs[index - 1 :: count]


def cell_run(folder: Path, cell: Cell, seed: int) -> Run:
    """Where a run of a comparison lies."""
    return Run(folder / cell.folder / f"seed-{seed}")


def run_cell(plan: ComparePlan, folder: Path, job: Job, *, progress: bool = False) -> bool:
    """Train one run and write what it says of the held-out images; what is there already is not done again.

    Returns:
        whether there was anything to do.

    Raises:
        RunError: the folder has a run with other settings.
        VitrailError: whatever training raises.
    """
    run = cell_run(folder, *job)
    config = plan.config(*job)
    if run.description.exists():
        known = TrainConfig.from_dict(run.read().get("training", {}))
        differences = differing_fields(known.to_dict(), config.to_dict())
        if differences:
            raise RunError(
                f"run {run.folder} was trained with other settings: {'; '.join(differences)}; "
                f"delete it, or choose another folder with --out"
            )
    todo = not is_finished(run)
    if todo:
        train(config, run=run, resume=True, progress=progress)
        run.predictions.unlink(missing_ok=True)
        run.robustness.unlink(missing_ok=True)
    if not run.predictions.exists():
        write_predictions(run)
    if plan.robustness and (not run.robustness.exists() or "translation" not in read_robustness(run)["summary"]):
        write_robustness(run, held_out(run), RobustnessConfig(groups=("translation",)))
    return todo


def held_out(run: Run) -> ImageSet:
    """The images that a run is tested on.

    Raises:
        RunError: the run does not classify; only classifiers are compared.
    """
    description = run.read()
    if description["task"] != "classification":
        raise RunError(f"run {run.folder} learns {description['task']}; only classification can be compared so far")
    return load_data(TrainConfig.from_dict(description["training"]).data).align(description["classes"]).held_out


def write_predictions(run: Run, batch_size: int = 64) -> None:
    """What a run's weights say of every held-out image, into ``run.predictions``."""
    description, task = run.read(), load_task(run)
    images = held_out(run)
    preprocessing = Preprocessing.from_dict(description["preprocessing"])
    logits = []
    with torch.inference_mode():
        for batch in eval_loader(images, preprocessing, batch_size=batch_size):
            logits.append(task(preprocessing.normalize(batch.images)).float())
    with atomic_path(run.predictions) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, logits=torch.cat(logits).numpy(), labels=images.labels.numpy(), names=np.array(images.names)
        )


def read_predictions(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Whether each held-out image was right (n,), and the names (n,)."""
    with np.load(run.predictions, allow_pickle=False) as arrays:
        return arrays["logits"].argmax(1) == arrays["labels"], arrays["names"]
