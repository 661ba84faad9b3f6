"""The space of a tune where nobody gives one: around the recipe's own values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from vitrail.core.errors import ConfigError
from vitrail.training.config import TrainConfig
from vitrail.training.recipes import Decided
from vitrail.tuning.space import value_at

RATE_FACTOR = 5.0
"""The learning rate is at most so many times the recipe's, and at least that part of it."""

EPOCHS_FACTOR = 2.0
"""The same of the epochs of a fine-tuning; from random weights more are nearly always better, so they do not vary."""

CROPS = (0.25, 0.4, 0.6, 0.8)
"""Smallest shares of the image that random crops cover."""


def default_space(asked: TrainConfig, decided: Decided, *, per_image: bool) -> dict[str, Any]:
    """Rows of a space, as a file has them; what somebody has decided does not vary.

    Args:
        asked: configuration before the recipe.
        decided: what the recipe made of it.
        per_image: whether the task has one class an image, whose images may be changed strongly.

    Raises:
        ConfigError: nothing is left to vary.
    """
    rows = {path[-1]: row for path, row in _rows(decided, per_image=per_image) if not _is_decided(asked, path)}
    if not rows:
        told = "leaves nothing that varies by default; name settings with --vary, or choose another recipe"
        raise ConfigError(told, recipe=decided.recipe)
    return rows


def _rows(decided: Decided, *, per_image: bool) -> Iterator[tuple[tuple[str, ...], Any]]:
    config, finetunes = decided.config, decided.recipe == "finetune"
    if decided.recipe == "probe":
        return
    rate = config.learning_rate
    yield ("learning_rate",), {"low": _short(rate / RATE_FACTOR), "high": _short(rate * RATE_FACTOR), "log": True}
    if finetunes:
        low, high = math.ceil(config.epochs / EPOCHS_FACTOR), math.ceil(config.epochs * EPOCHS_FACTOR)
        yield ("epochs",), {"low": low, "high": high, "log": True}
        yield ("layer_decay",), {"low": _short(max(config.layer_decay - 0.2, 0.3)), "high": 1.0}
    yield ("weight_decay",), {"low": 0.005, "high": 0.5, "log": True}
    yield ("drop_path_rate",), {"low": 0.0, "high": 0.2}
    if per_image:
        yield ("augment", "rand_augment_num_ops"), {"low": 0, "high": 3}
        crop = config.augment.random_resized_crop_scale
        yield ("augment", "random_resized_crop_scale"), sorted([share, 1.0] for share in {*CROPS, crop[0]})
        if not finetunes:
            yield ("augment", "mixup_alpha"), [0.0, 0.2, 0.8]


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _is_decided(asked: TrainConfig, path: tuple[str, ...]) -> bool:
    """Whether somebody gave the field a value of its own."""
    return value_at(asked, path) != value_at(TrainConfig(), path)
