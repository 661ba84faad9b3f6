"""Which models to start from, for some images and limits, before anything is trained.

Nothing can say before a training which model will be the most accurate on these images; ``vitrail probe`` comes close.
What is known are limits, and whether there are weights: among models within the limits the one that computes the most
for an image comes first, since more computation usually is more accurate. Without limits it is the one that computes
the least.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vitrail.core.errors import CheckpointError, ConfigError, DataError, VitrailError
from vitrail.core.paths import typed_path
from vitrail.core.types import ImageSize
from vitrail.data import DataSplits, Samples, decode_image
from vitrail.data.pixels.decode import image_size_of
from vitrail.models.measured_times import measured_times
from vitrail.models.pretrained import PREFIX
from vitrail.runs.load import make_spec
from vitrail.runs.model_candidates import find_candidates, looked_up, measured
from vitrail.runs.model_rows import Candidate, LeftOut, ModelChoiceConfig, ModelRow
from vitrail.runs.probe_candidates import typed_imports, typed_size
from vitrail.runs.recipe import WITHOUT_START
from vitrail.soundness.recognize import likely_tasks
from vitrail.tasks import DEFAULT_TASK, TaskKind, TaskSpec, find_task
from vitrail.training import TrainConfig

FEW_A_CLASS = 500
"""Training images a class below which a model needs weights that know other images. It is judgement."""

FEW_IMAGES = 5000
"""The same for tasks whose images have no class of their own: training images in all."""

SIZED = 50
"""Images whose sizes are looked at."""

ENLARGED = 2
"""Factor from which on images are enlarged so much that a smaller size is worth a thought."""


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The models that are named.

    Attributes:
        task: task of the data.
        rows: models, the one to start with first.
        notes: sentences on the images, on what was left out, and on where the times are from.
        next_command: command that trains the first one.
        probe_command: command that compares those with weights on the images; "" where that cannot be done.
    """

    task: str
    rows: tuple[ModelRow, ...]
    notes: tuple[str, ...]
    next_command: str
    probe_command: str


def choose_models(config: ModelChoiceConfig, *, progress: bool = True) -> ModelChoice:
    """Name models for these images and limits.

    Args:
        config: images and limits.
        progress: show a bar while models are measured.

    Raises:
        DataError: the images cannot be used.
        ConfigError: the task makes its models from nothing; no model is within the limits.
        CheckpointError: models need weights, and there are none.
    """
    kind, splits, spec = _read(config, progress)
    count, enough, told = _amount(kind, splits)
    candidates, notes = find_candidates(config, needs_weights=not enough)
    if not candidates:
        raise CheckpointError(
            f"{count}, and no model '{config.pattern}' has weights that can be had; name some: --weights NAME=FILE"
        )
    left = LeftOut()
    choose = measured if config.measure else looked_up
    chosen = choose(candidates, config, kind, spec, left, progress)
    if not chosen:
        raise _nothing_fits(config, candidates, left)
    rows = [one.row for one in chosen]
    rows = [replace(row, why=_why(row, first=not index, config=config)) for index, row in enumerate(rows)]
    every = (told, *notes, *_notes(config, kind, splits, rows, left))
    return ModelChoice(
        task=kind.name,
        rows=tuple(rows),
        notes=tuple(filter(None, every)),
        next_command=_train_command(config, kind, chosen[0]),
        probe_command=_probe_command(config, kind, chosen),
    )


def _read(config: ModelChoiceConfig, progress: bool) -> tuple[TaskKind, DataSplits[Any], TaskSpec]:
    """The task, its data, and what its models are built from."""
    kind = find_task(config.task or likely_tasks(config.data.path)[0])
    if kind.name in WITHOUT_START:
        raise ConfigError(
            f"the task '{kind.name}' trains its models from nothing, and none is named for it; 'vitrail train --task "
            f"{kind.name}' chooses one. If the images have labels, name their task with --task"
        )
    splits = kind.load_data(config.data, progress=progress)
    if not len(splits.train):
        raise DataError(f"{splits.source} has no training images; check its split, and val_fraction")
    return kind, splits, make_spec(kind.describe_data(splits), TrainConfig(task=kind.name))


def _amount(kind: TaskKind, splits: DataSplits[Any]) -> tuple[str, bool, str]:
    """How many images there are, whether random weights may do, and the sentence on it."""
    total, classes = len(splits.train), max(len(splits.classes), 1)
    size = _median_size(splits.train)
    pixels = f", {size[1]}x{size[0]} pixels at the median" if size else ""
    if kind.task.per_image:
        each, few = round(total / classes), FEW_A_CLASS
        count = f"{total:,} training images of {classes} classes ({each:,} a class)"
    else:
        each, few, count = total, FEW_IMAGES, f"{total:,} training images for {kind.name}"
    if each >= few:
        return count, True, f"{count}{pixels}: weights help, and random ones may do."
    return count, False, f"{count}{pixels}: so few need weights that know other images."


def _median_size(samples: Samples) -> ImageSize | None:
    """(height, width) in the middle of a few images."""
    sizes = []
    for record in samples.sample(SIZED, 0).records:
        source = record.source
        size = tuple(decode_image(source).shape[1:]) if isinstance(source, bytes) else image_size_of(source)
        if size is not None:
            sizes.append(size)
    if not sizes:
        return None
    return round(statistics.median(one[0] for one in sizes)), round(statistics.median(one[1] for one in sizes))


def _why(row: ModelRow, config: ModelChoiceConfig, *, first: bool) -> str:
    """Why a model is named, in a few words."""
    reasons = ["most computation within the limits" if config.limited else "the least computation"] if first else []
    if row.weights not in (None, PREFIX):
        reasons.append("your weights")
    if row.top1 is not None:
        reasons.append(f"ImageNet {row.top1:.1f} %")
    return ", ".join(reasons)


def _notes(
    config: ModelChoiceConfig, kind: TaskKind, splits: DataSplits[Any], rows: Sequence[ModelRow], left: LeftOut
) -> Iterator[str]:
    """Sentences on sizes, on what was left out, and on where the times are from."""
    size = _median_size(splits.train)
    if size and config.image_size is None and ENLARGED * max(size) <= min(rows[0].image_size):
        yield (
            f"These images are enlarged to {rows[0].image_size[1]}x{rows[0].image_size[0]}; a smaller --image-size is "
            "faster, and often as accurate."
        )
    if left.unfit:
        yield f"{left.unfit} models do not take the image size or the task."
    if left.unknown:
        yield f"{left.unknown} models are left out, since their times are not known at this size; --measure measures."
    if left.unmeasured:
        yield f"{left.unmeasured} models were not measured: too slow, or behind those that were."
    if any(row.timed == "table" for row in rows):
        yield f"Times of the table: processor time, one thread, float32, measured on {measured_times().place}."
        if kind.name != DEFAULT_TASK:
            yield f"They are of a classifier; the head for {kind.name} takes longer. --measure measures it here."
        else:
            yield "Other machines take other times: --measure measures here."
    if here := [row for row in rows if row.timed == "here"]:
        yield f"Times here: one image, one thread, float32, {' or '.join(dict.fromkeys(row.runtime for row in here))}."
        if any(row.contended for row in here):
            yield "* Other programs disturbed the measurement; this is processor time."


def _nothing_fits(config: ModelChoiceConfig, candidates: Sequence[Candidate], left: LeftOut) -> VitrailError:
    """The limit that leaves nothing, with the nearest model."""
    if left.slow:
        nearest = min(left.slow, key=lambda row: row.latency_ms or 0.0)
        where = "here" if nearest.timed == "here" else f"on {measured_times().place}"
        others = "" if nearest.timed == "here" else ", measure here with --measure"
        return ConfigError(
            f"--max-latency-ms {config.max_latency_ms:g} leaves no model: the fastest one with weights, "
            f"{nearest.model}, takes {nearest.latency_ms:.3g} ms {where}; relax it{others}, or take a smaller "
            "--image-size"
        )
    if left.unknown:
        return ConfigError(
            f"the times of {left.unknown} models are not known at this image size, so that none can be named for "
            f"--max-latency-ms {config.max_latency_ms:g}; add --measure to measure here"
        )
    if left.large:
        least = min(left.large, key=lambda row: row.num_params)
        return ConfigError(
            f"--max-size-mb {config.max_size_mb:g} leaves no model: the smallest one, {least.model}, has about "
            f"{least.size_bytes / 1e6:.3g} MB in float32; relax it (8 bits, from 'vitrail quantize', take a quarter)"
        )
    return ConfigError(
        f"none of {len(candidates)} models takes images of this size for this task; leave --image-size out, or give a "
        "multiple of 32"
    )


def _train_command(config: ModelChoiceConfig, kind: TaskKind, candidate: Candidate) -> str:
    task = "" if kind.name == DEFAULT_TASK else f" --task {kind.name}"
    start = f"--model {candidate.row.model}" if candidate.source is None else candidate.source.typed()
    return (
        f"vitrail train --data {typed_path(config.data.path)}{task} {start}{typed_size(config.image_size)}"
        f"{typed_imports()}"
    )


def _probe_command(config: ModelChoiceConfig, kind: TaskKind, candidates: Sequence[Candidate]) -> str:
    words = [one.source.word() for one in candidates if one.source is not None]
    if not kind.task.per_image or len(words) < 2:
        return ""
    return (
        f"vitrail probe {typed_path(config.data.path)} --model {' '.join(words)}{typed_size(config.image_size)}"
        f"{typed_imports()}"
    )
