"""The largest batch that fits into memory, as a power of two."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from vitrail.core.errors import ConfigError
from vitrail.core.types import Batch, Preprocessing
from vitrail.data import DataSplits, train_loader
from vitrail.tasks import Task
from vitrail.training.config import ResolvedConfig
from vitrail.training.freezing import frozen_part

MOST_ON_CPU = 64
"""Larger batches make a CPU no faster, and take fewer steps."""

MOST_ON_GPU = 1024
"""Larger batches want another learning rate than any default."""

SHARE = 0.8
"""Share of the memory of a GPU, and of the free memory of a machine, that training may fill."""

COPIES = 5
"""Times the parameters are held: weights, gradients, two moments of AdamW, and the moving average."""


@dataclass(frozen=True)
class ChosenBatch:
    """A batch size, and a sentence on what bounds it."""

    size: int
    told: str


def choose_batch_size(
    task: Task,
    config: ResolvedConfig,
    splits: DataSplits[Any],
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    world_size: int = 1,
    precision: str = "32-true",
) -> ChosenBatch:
    """The largest power of two that is no more than the training images, a limit of the device, and its memory.

    On a GPU steps are tried with batches twice as large each time. On a CPU the tensors that a step of two images keeps
    are counted, as if nothing were frozen, and compared with the free memory. Neither changes the task or any random
    number of the training.

    Args:
        task: the task, on the CPU.
        config: configuration of the training.
        splits: images to take batches of.
        preprocessing: conversion of an image to the input of the task.
        device: where training will run.
        world_size: number of processes that will train together.
        precision: Lightning's name of the number format.

    Raises:
        ConfigError: several processes would each choose a size.
    """
    if world_size > 1:
        raise ConfigError(f"is chosen for one device, and there are {world_size}; give a number", batch_size="auto")
    on_gpu = device.type == "cuda"
    most = MOST_ON_GPU if on_gpu and not task.adversarial else MOST_ON_CPU
    bounds = {f"a limit of {most}": most, f"{len(splits.train)} training images": len(splits.train)}
    if not task.adversarial:
        loader = _Loader(config, splits, preprocessing)
        largest = _power_of_two(min(bounds.values()))
        fitting = _tried(task, loader, device, precision, largest) if on_gpu else _counted(task, loader)
        bounds[f"the memory of {device.type}"] = fitting
    reason = min(bounds, key=lambda name: bounds[name])
    size = _power_of_two(bounds[reason])
    return ChosenBatch(size, f"Batch size {size} is the largest power of two for {reason}")


@dataclass(frozen=True)
class _Loader:
    """Gives batches of any size as training would."""

    config: ResolvedConfig
    splits: DataSplits[Any]
    preprocessing: Preprocessing

    def batch(self, size: int) -> tuple[Tensor, Any]:
        loader = train_loader(
            self.splits.train,
            self.preprocessing,
            self.config.augment,
            batch_size=size,
            num_workers=0,
            seed=self.config.seed,
            num_classes=len(self.splits.classes),
        )
        batch: Batch = next(iter(loader))
        return self.preprocessing.normalize(batch.images), batch.targets


def _counted(task: Task, loader: _Loader) -> int:
    """Images whose kept tensors fit beside the parameters into the free memory."""
    images, targets = loader.batch(2)
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with _copied(task) as trial, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = trial.training_answer(images, targets)[0]
        own = {one.untyped_storage().data_ptr() for one in trial.parameters()}
        del loss
    activations = sum(size for place, size in kept.items() if place not in own) / len(images)
    parameters = sum(one.numel() * one.element_size() for one in task.parameters())
    free = SHARE * psutil.virtual_memory().available - COPIES * parameters
    return max(int(free / (2 * max(activations, 1))), 1)  # gradients of activations take as much again


def _tried(task: Task, loader: _Loader, device: torch.device, precision: str, largest: int) -> int:
    """Images of the largest batch that leaves a share of the GPU's memory free."""
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    fitting, size = 1, 2
    while size <= largest:
        images, targets = loader.batch(size)
        torch.cuda.reset_peak_memory_stats(device)
        try:
            with (
                _copied(task) as trial,
                torch.autocast("cuda", half, enabled=half is not None),
            ):
                trial.to(device).to(memory_format=torch.channels_last)
                if not loader.config.freeze_epochs:
                    frozen_part(trial, loader.config).hold()
                average = copy.deepcopy(trial)
                optimizer = torch.optim.AdamW([one for one in trial.parameters() if one.requires_grad])
                for _ in range(2):  # the second has the optimiser's moments, too
                    trial.training_answer(images.to(device), _moved(targets, device))[0].backward()
                    optimizer.step()
                    optimizer.zero_grad()
                del average, optimizer
        except torch.OutOfMemoryError:
            break
        finally:
            torch.cuda.empty_cache()
        if torch.cuda.max_memory_reserved(device) > SHARE * torch.cuda.mem_get_info(device)[1]:
            break
        fitting, size = size, 2 * size
    return fitting


@contextmanager
def _copied(task: Task) -> Iterator[Task]:
    """A copy in training mode, whose random numbers are nobody else's."""
    with torch.random.fork_rng():
        yield copy.deepcopy(task).train()


def _moved(targets: Any, device: torch.device) -> Any:
    if isinstance(targets, Tensor):
        return targets.to(device)
    if isinstance(targets, dict):
        return {name: _moved(one, device) for name, one in targets.items()}
    return [_moved(one, device) for one in targets]


def _power_of_two(number: int) -> int:
    return 1 << (max(number, 1).bit_length() - 1)
