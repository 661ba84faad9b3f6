"""The line that a training begins with: what is learnt, from which images, where and how."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits
from vitrail.tasks import Task
from vitrail.training.freezing import frozen_part
from vitrail.training.lora import adapter_size
from vitrail.training.recipes import Decided

MOST_CLASSES = 8
"""Classes that are named."""


def opening_line(
    decided: Decided, task: Task, splits: DataSplits[Any], preprocessing: Preprocessing, trainer: Trainer
) -> str:
    """Classes, images of each part, device, model, weights and recipe of a training, in one line."""
    config = decided.config
    names = ", ".join(splits.classes[:MOST_CLASSES]) + (", ..." if len(splits.classes) > MOST_CLASSES else "")
    images = ", ".join(f"{len(part)} {name}" for name, part in splits.parts.items())
    height, width = preprocessing.image_size
    size = f"images of {height}x{width} pixels"
    joined = f" ({config.accumulate} batches a step)" if config.accumulate > 1 else ""
    epochs = f"{config.epochs} epoch{'s' * (config.epochs > 1)}"
    if config.minutes is not None:
        epochs = f"{config.minutes:g} min, at most {epochs}"
    epochs += f", batches of {config.batch_size} {size}{joined}, learning rate {config.learning_rate:g}"
    devices = f"{trainer.num_devices * trainer.num_nodes} x {trainer.strategy.root_device.type}"
    num_params = sum(one.numel() for one in task.parameters()) - adapter_size(task)
    num_trained = num_params + adapter_size(task) - sum(one.numel() for one in frozen_part(task, config).parameters)
    until = f" in the first {config.freeze_epochs:g} epochs" if config.freeze_epochs else ""
    trained = f" ({num_trained:,} trained{until})" if num_trained != num_params else ""
    facts = {
        "Task": f"{task.name}, {len(splits.classes)} classes ({names})" if names else task.name,
        "images": f"{images}, {splits.num_skipped} left out",
        "device": f"{devices}, {trainer.precision}",
        "model": f"{config.model}, {num_params:,} parameters{trained}",
        "weights": config.weights or "random",
        "recipe": f"{decided.recipe} ({decided.why}), {size if decided.recipe == 'probe' else epochs}, "
        f"seed {config.seed}",
    }
    return "; ".join(f"{name}: {fact}" for name, fact in facts.items())
