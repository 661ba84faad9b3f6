"""Recipes: the choices of a training that nobody made, each with its reason.

"scratch" trains from random weights, with the defaults of :class:`~vitrail.training.config.ResolvedConfig`.

"finetune" goes on from weights that have seen other images. A few hundred images hold little to learn from, so that the
schedule counts steps, not epochs; the first layers, which know most already, learn the least (layer-wise decay as in
BEiT, Bao et al., ICLR 2022); and the classifier starts from a linear probe instead of random numbers, since a random
one spoils the backbone in its first steps (Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution", ICLR 2022). The values are judgement; ``benchmarks/recipes.py`` measures what they reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from vitrail.data import CHOSEN_AUGMENT, ResolvedAugment
from vitrail.tasks import find_task
from vitrail.training.config import AUTO, CHOSEN, Recipe, ResolvedConfig, TrainConfig, completed

STEPS_PER_ROOT = 20.0
"""Steps of fine-tuning are this times the square root of the number of images."""

FEWEST_STEPS, FEWEST_EPOCHS = 200, 3

RATE_PER_IMAGE = 1e-3 / 64
"""Learning rate of fine-tuning, for each image of a batch."""

FIRST_LAYER_RATE = 0.03
"""Learning rate of the first layer of a fine-tuned model, in units of the classifier's."""

FEW_IMAGES, MANY_IMAGES = 1000, 5000


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a recipe follows from.

    Attributes:
        task: name of the task.
        num_images: number of training images.
        num_layers: number of groups of layers of the model, from the stem to the classifier.
        weights: what the weights have learnt: nothing, to fill in images without labels, or to tell other images apart.
    """

    task: str
    num_images: int
    num_layers: int = 1
    weights: Literal["random", "unlabelled", "labelled"] = "random"


@dataclass(frozen=True, kw_only=True)
class Decided:
    """The result of a recipe.

    Attributes:
        recipe: name of the recipe that decided; never "auto".
        config: every choice.
        reasons: field -> why the recipe chose this value; fields that somebody else decided are left out.
        why: reason of the recipe itself, as a clause.
    """

    recipe: Recipe
    config: ResolvedConfig
    reasons: dict[str, str]
    why: str


def resolve(config: TrainConfig, facts: Facts) -> Decided:
    """Make the choices that a configuration leaves out.

    Args:
        config: what is decided; its ``model`` is given.
        facts: what the choices follow from.
    """
    recipe, why = _recipe_of(config, facts)
    values, reasons = _finetuning(config, facts) if recipe != "scratch" else ({}, {})
    augment = ResolvedAugment(**{name: values.pop(name) for name in CHOSEN_AUGMENT if name in values})
    open_fields = [name for name in CHOSEN if getattr(config, name) in (None, AUTO)]
    open_fields += [name for name in CHOSEN_AUGMENT if getattr(config.augment, name) is None]
    return Decided(
        recipe=recipe,
        config=completed(config, ResolvedConfig(**values, augment=augment)),
        reasons={name: reasons.get(name, f"usual with the recipe {recipe}") for name in open_fields},
        why=why,
    )


def _recipe_of(config: TrainConfig, facts: Facts) -> tuple[Recipe, str]:
    if config.recipe != "auto":
        return config.recipe, "asked for"
    if facts.weights == "random":
        return "scratch", "the weights are random"
    if facts.weights == "unlabelled":
        return "scratch", "the weights have learnt without labels, and no recipe for them was measured yet"
    if not find_task(facts.task).task.probed:
        return "scratch", f"no recipe for {facts.task} from pretrained weights was measured yet"
    return "finetune", "the weights have seen other images"


def _finetuning(config: TrainConfig, facts: Facts) -> tuple[dict[str, Any], dict[str, str]]:
    """Values of a fine-tuning, and their reasons."""
    batch = config.batch_size if isinstance(config.batch_size, int) else _batch_size(facts.num_images)
    steps_per_epoch = max(facts.num_images // batch, 1)
    wanted = max(STEPS_PER_ROOT * math.sqrt(facts.num_images), FEWEST_STEPS)
    epochs = config.epochs or max(math.ceil(wanted / steps_per_epoch), FEWEST_EPOCHS)
    steps = epochs * steps_per_epoch
    counted = f"{facts.num_images:,} training images"
    values: dict[str, Any] = {
        "batch_size": batch,
        "epochs": epochs,
        "learning_rate": RATE_PER_IMAGE * batch,
        "layer_decay": round(FIRST_LAYER_RATE ** (1 / max(facts.num_layers, 1)), 3),
        "warmup_epochs": round(epochs / 10, 2),
        "drop_path_rate": 0.1 if facts.num_images >= MANY_IMAGES else 0.0,
        "ema_decay": round(min(max(1 - 10 / steps, 0.9), 0.9998), 4),
    }
    reasons = {
        "batch_size": f"{counted}: an epoch has {steps_per_epoch} steps",
        "epochs": f"about {steps:,} steps are enough for {counted}",
        "learning_rate": f"grows with the batch size, {batch}",
        "layer_decay": f"the first of {facts.num_layers} layer groups learns at {FIRST_LAYER_RATE} of the full rate",
        "warmup_epochs": "a tenth of the training",
        "drop_path_rate": f"a training on {counted} is " + ("long" if facts.num_images >= MANY_IMAGES else "short"),
        "ema_decay": f"the average reaches back a tenth of {steps:,} steps",
    }
    mild = _augmentation(facts.num_images)
    return values | mild, reasons | dict.fromkeys(mild, f"mild: {counted}, and the weights know much already")


def _batch_size(num_images: int) -> int:
    """A power of two; small sets get several steps an epoch."""
    return 64 if num_images >= MANY_IMAGES else 32 if num_images >= 128 else 16 if num_images >= 32 else 8


def _augmentation(num_images: int) -> dict[str, Any]:
    if num_images >= MANY_IMAGES:
        return {}
    scale = (0.6, 1.0) if num_images < FEW_IMAGES else (0.5, 1.0)
    return {
        "random_resized_crop_scale": scale,
        "rand_augment_num_ops": 1,
        "rand_augment_magnitude": ResolvedAugment().rand_augment_magnitude,
        "random_erasing": 0.0,
    }
