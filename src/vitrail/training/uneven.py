"""Data whose classes are uneven: the loss and the order of images that even them out."""

from __future__ import annotations

from typing import Any

from vitrail.core.errors import ConfigError
from vitrail.data import DataSplits, Order, balanced_order
from vitrail.tasks import Task
from vitrail.training.config import TrainConfig


def check_uneven(kind: type[Task], config: TrainConfig) -> None:
    """
    Raises:
        ConfigError: the task has a loss of its own, or no classes to draw images by.
    """
    given = {"loss": config.loss if config.loss != "cross_entropy" else None, "class_weights": config.class_weights}
    for name, value in given.items():
        if value is not None and not kind.losses:
            raise ConfigError(f"task {kind.name} has a loss of its own; leave it out", **{name: value})
    if given["loss"] and config.loss not in kind.losses:
        raise ConfigError(f"is no loss of the task {kind.name}; it has {', '.join(kind.losses)}", loss=config.loss)
    if config.sampler == "balanced" and not kind.per_image:
        raise ConfigError(f"task {kind.name} has no single class an image; leave it out", sampler=config.sampler)


def set_class_loss(task: Task, config: TrainConfig, splits: DataSplits[Any]) -> None:
    """Give a task the loss that the configuration asks for, from the classes of the training images."""
    if config.loss == "cross_entropy" and config.class_weights is None:
        return
    shares = splits.train.class_shares(len(splits.classes))
    assert shares is not None
    task.class_loss = task.make_class_loss(
        shares,
        loss=config.loss,
        class_weights=config.class_weights,
        beta=config.class_weight_beta,
        gamma=config.focal_gamma,
        tau=config.logit_adjustment,
    )


def drawn_order(config: TrainConfig, splits: DataSplits[Any]) -> Order | None:
    """The order of the training images; None for each image once an epoch."""
    return balanced_order(splits.train.labels) if config.sampler == "balanced" else None


def uneven_remarks(config: TrainConfig) -> tuple[str, ...]:
    """A sentence for whoever evens out the classes more than once."""
    given = [
        *(["--sampler balanced"] if config.sampler == "balanced" else []),
        *([f"--class-weights {config.class_weights}"] if config.class_weights else []),
        *(["--loss logit_adjusted"] if config.loss == "logit_adjusted" else []),
    ]
    if len(given) < 2:
        return ()
    return (f"Warning: {' and '.join(given)} each even out the classes; together they prefer rare ones; give one",)
