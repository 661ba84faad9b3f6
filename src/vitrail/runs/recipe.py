"""What a training leaves open, decided from its data, its model and its weights."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from safetensors.torch import save

from vitrail.core.errors import ConfigError, VitrailError
from vitrail.core.files import atomic_path
from vitrail.core.types import Preprocessing
from vitrail.data import CHOSEN_AUGMENT, DataSplits
from vitrail.models.starting_point import FALLBACK, find_starting_point
from vitrail.models.weights_source import run_of
from vitrail.runs.description import RecipeEntry
from vitrail.runs.folder import training_files
from vitrail.runs.load import make_spec, model_fields
from vitrail.runs.run import Run
from vitrail.tasks import Task, find_task
from vitrail.training.config import ResolvedConfig, TrainConfig
from vitrail.training.linear_probe import fit_probe
from vitrail.training.lora import merged
from vitrail.training.recipes import Decided, Facts, resolve

WITHOUT_START = ("generation", "pretraining", "distillation")
"""Tasks that make their models from nothing."""


def with_model(config: TrainConfig) -> tuple[TrainConfig, str]:
    """The configuration with a model, and the sentence that tells which; "" where it was given.

    Raises:
        ConfigError: weights are given that do not tell their model.
        CheckpointError: public weights were asked for and cannot be had.
    """
    if config.model is not None:
        return config, ""
    own: dict[str, Any] = {field.name: getattr(config, field.name) for field in fields(config)}
    if config.task in WITHOUT_START or (config.recipe == "scratch" and config.weights is None):
        return TrainConfig(**own | {"model": FALLBACK}), ""
    start = find_starting_point(config.weights)
    decided = {"model": start.model, "weights": start.weights, "model_fields": start.fields | config.model_fields}
    return TrainConfig(**own | decided), start.sentence


def decide(config: TrainConfig, splits: DataSplits[Any]) -> Decided:
    """Follow the recipe.

    Args:
        config: configuration with a model.
        splits: images of the training.

    Raises:
        ConfigError: the recipe does not suit the task, or needs weights.
        VitrailError: the model does not take a field of the configuration.
    """
    _check_recipe(config)
    weights = _kind_of(config.weights)
    layers = num_layers(config, splits) if weights == "labelled" or config.recipe in ("finetune", "probe") else 1
    return resolve(config, Facts(task=config.task, num_images=len(splits.train), num_layers=layers, weights=weights))


def _check_recipe(config: TrainConfig) -> None:
    if config.recipe not in ("finetune", "probe"):
        return
    if config.weights is None:
        told = "starts from weights that know images; give --weights, or leave out --model to get public ones"
        raise ConfigError(told, recipe=config.recipe)
    if config.task in WITHOUT_START or (config.recipe == "probe" and not find_task(config.task).task.probed):
        fitting = "scratch" if config.task in WITHOUT_START else "finetune or scratch"
        raise ConfigError(f"is not for the task {config.task}; use {fitting}", recipe=config.recipe)


def _kind_of(weights: str | None) -> Literal["random", "unlabelled", "labelled"]:
    if weights is None:
        return "random"
    _, task = run_of(weights)
    return "unlabelled" if task == "pretraining" else "labelled"


def num_layers(config: TrainConfig, splits: DataSplits[Any]) -> int:
    """Groups of layers of the model, which is built without memory for its weights.

    Raises:
        VitrailError: there is no such model, or it does not take a field of the configuration.
    """
    kind = find_task(config.task)
    num_outputs = kind.num_outputs(make_spec(kind.describe_data(splits), config))
    with torch.device("meta"):
        return len(kind.make_backbone(config.model, num_classes=num_outputs, **model_fields(config)).layer_groups())


def expected(config: TrainConfig) -> dict[str, str]:
    """Field that is left out -> the value that the recipe gives it on the data, and the reason; for ``--print-config``.

    It reads the data; where they cannot be read, nothing is known.
    """
    try:
        named, sentence = with_model(config)
        splits = find_task(config.task).load_data(config.data, progress=False)
        decided = decide(named, splits)
    except VitrailError:
        return {}
    told = {}
    for name, reason in decided.reasons.items():
        place, path = (decided.config.augment, f"augment.{name}") if name in CHOSEN_AUGMENT else (decided.config, name)
        told[path] = f"{getattr(place, name)}: {reason}"
    if config.model is None:
        told |= {"model": f"{decided.config.model}: {sentence}" if sentence else decided.config.model}
        told |= {"weights": decided.config.weights or "random"}
    return told | {"recipe": f"{decided.recipe}: {decided.why}"}


def note_recipe(run: Run, decided: Decided, splits: DataSplits[Any]) -> None:
    """Keep in ``run.json`` what was decided and why, and how often the most frequent class is right."""
    entry = RecipeEntry(
        name=decided.recipe, why=decided.why, reasons=decided.reasons, majority=_simplest(decided.config.task, splits)
    )
    run.update(recipe=entry.model_dump())


def _simplest(task: str, splits: DataSplits[Any]) -> float | None:
    """The first score of an answer that looks at no image, on the validation images."""
    simplest = find_task(task).simplest
    return None if simplest is None else simplest[1](splits)


def starts_from_probe(decided: Decided) -> bool:
    """Whether the classifier starts from a linear probe."""
    return decided.recipe != "scratch" and find_task(decided.config.task).task.probed


def start_from_probe(
    run: Run,
    task: Task,
    splits: DataSplits[Any],
    preprocessing: Preprocessing,
    config: ResolvedConfig,
    trainer: Trainer,
) -> str:
    """Set the classifier to the linear probe of the frozen backbone, and keep the probe.

    Every process fits the same probe; the first one writes it.

    Returns:
        the sentence that tells its accuracy.

    Raises:
        DataError: the training images have one class, or are all alike.
    """
    first = trainer.is_global_zero
    found = fit_probe(
        task,
        splits.train,
        preprocessing,
        val=splits.val,
        class_weights="balanced" if config.class_weights else "none",
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        seed=config.seed,
        progress=first and trainer.progress_bar_callback is not None,
    )
    task.train()
    if first and (entry := run.read().recipe) is not None:
        probe = training_files(run).probe
        probe.parent.mkdir(exist_ok=True)
        with atomic_path(probe) as temporary:
            temporary.write_bytes(
                save({name: value.contiguous() for name, value in merged(task.state_dict(), config).items()})
            )
        run.update(recipe=entry.model_dump() | {"probe": found.val_score, "probe_scores": found.val_scores})
    absent = f"; no training images of {', '.join(found.absent)}, which it never answers" if found.absent else ""
    value, title = found.val_score, task.scores[0].title
    reached = (
        f"{value:.1%} of the validation images are right" if task.per_image else f"{title} {value:.1%} in validation"
    )
    return f"Linear probe: {reached}, in {found.seconds:.0f} s{absent}"


def verdict(run: Run) -> str:
    """How the model compares with simpler answers, in one line; "" where nothing simpler is known."""
    description = run.read()
    recipe, trained = description.recipe, description.trained
    if recipe is None or trained is None or recipe.majority is None:
        return ""
    kind = description.kind
    shown = {kind.simplest[0] if kind.simplest else "always the same": recipe.majority, "linear probe": recipe.probe}
    if recipe.name != "probe":
        shown["fine-tuned" if recipe.name == "finetune" else "trained"] = trained.best_score
    figures = ", ".join(f"{name} {value:.1%}" for name, value in shown.items() if value is not None)
    kept = ""
    if trained.keep == "probe" and recipe.name != "probe":
        score = description.kind.score(description.training.keep_score)
        by = "" if score == description.kind.scores[0] else f" in {score.title}"
        kept = f"; the probe is kept, since no epoch was better{by}"
    title = "" if kind.task.per_image else f"{kind.scores[0].title} of "
    return f"On {description.data.num_val} validation images: {title}{figures}{kept}"
