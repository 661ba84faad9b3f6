"""The line that a training begins with: what is learnt, from which images, where and how."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits
from vitrail.tasks import Task
from vitrail.training.config import TrainConfig

MOST_CLASSES = 8
"""Classes that are named."""


def opening_line(
    config: TrainConfig, task: Task, splits: DataSplits[Any], preprocessing: Preprocessing, trainer: Trainer
) -> str:
    """Classes, images of each part, device, model, weights and recipe of a training, in one line."""
    names = ", ".join(splits.classes[:MOST_CLASSES]) + (", ..." if len(splits.classes) > MOST_CLASSES else "")
    images = ", ".join(f"{len(part)} {name}" for name, part in splits.parts.items())
    height, width = preprocessing.image_size
    epochs = f"{config.epochs} epoch{'s' * (config.epochs > 1)}"
    if config.minutes is not None:
        epochs = f"{config.minutes:g} min, at most {epochs}"
    devices = f"{trainer.num_devices * trainer.num_nodes} x {trainer.strategy.root_device.type}"
    facts = {
        "Task": f"{task.name}, {len(splits.classes)} classes ({names})" if names else task.name,
        "images": f"{images}, {splits.num_skipped} left out",
        "device": f"{devices}, {trainer.precision}",
        "model": f"{config.model}, {sum(one.numel() for one in task.parameters()):,} parameters",
        "weights": config.weights or "random",
        "recipe": f"{epochs}, batches of {config.batch_size} images of {height}x{width} pixels, "
        f"learning rate {config.learning_rate:g}, seed {config.seed}",
    }
    return "; ".join(f"{name}: {fact}" for name, fact in facts.items())
