"""``vitrail probe``: how far frozen backbones get on these images, in a minute; the best one becomes a run."""

from __future__ import annotations

import logging
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from vitrail.bench import BenchConfig
from vitrail.bench.protocol import is_contended, measure
from vitrail.core.config import convert_fields
from vitrail.core.errors import CheckpointError, ConfigError, DataError, ImageSizeError
from vitrail.core.files import write_json
from vitrail.core.paths import cache_folder, typed_path, user_path
from vitrail.core.types import Preprocessing, as_image_size
from vitrail.data import DataConfig, DataSplits, ImageSet, draw_order
from vitrail.runs.folder import check_folder, clear, describe, keep_weights
from vitrail.runs.load import make_spec
from vitrail.runs.preprocessing import decide_preprocessing, source_of
from vitrail.runs.probe_candidates import Availability, ProbeSource, find_sources, typed_imports, typed_size
from vitrail.runs.probe_results import ProbedImages, ProbeReport, ProbeRow, advice, choose, score_interval
from vitrail.runs.run import Run
from vitrail.runtimes import open_session
from vitrail.tasks import DEFAULT_TASK, Task, find_task
from vitrail.training import ResolvedConfig, TrainConfig
from vitrail.training.cross_validation import CrossValidation, cross_validate, learning_curve, trend_of
from vitrail.training.embedding import Features, embed
from vitrail.training.folds import Indices, groups_of
from vitrail.training.linear_probe import ClassWeights, fit_linear_head

LOG = logging.getLogger(__name__)

TIMING = BenchConfig(
    min_runs=15, min_seconds=0.5, budget_seconds=10.0, warmup_runs=10, warmup_seconds=1.0, memory=False
)
"""A latency for a table; ``vitrail bench`` measures one for a decision."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """The configuration of a probe.

    Attributes:
        data: the images and their split; probes are fitted on the training images.
        model: Backbones to compare: names of models with public weights, NAME=FILE for weights files, run folders.
            Default: the models in the hub's cache, and a few small ones.
        weights: Weights file, https URL or hf://owner/repository/file for a single `--model`. Default: public weights.
        task: Task of the data; a probe is for classification alone.
        image_size: Pixels a side, or height and width. Default: the model's own size.
        num_images: Largest number of training images; more are left out by seed.
        class_weights: Weight of the classes; "balanced" gives rare ones the same weight as frequent ones.
        batch_size: Number of images at once; changes speed, never the result.
        num_workers: Number of processes that decode images; 0 decodes in the process itself.
        cache: Folder that keeps features for the next time. Default: vitrail/features in the user's cache.
        seed: Random seed of the folds and of the map.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: tuple[str, ...] = ()
    weights: str | None = None
    task: str = DEFAULT_TASK
    image_size: int | tuple[int, int] | None = None
    num_images: int = 5000
    class_weights: ClassWeights = "none"
    batch_size: int = 32
    num_workers: int = 2
    cache: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        convert_fields(self)
        for name in ("num_images", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError("is below 1", **{name: getattr(self, name)})
        for name in ("num_workers", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError("is below 0", **{name: getattr(self, name)})
        if self.image_size is not None:
            as_image_size(self.image_size)


@dataclass(kw_only=True)
class _Probed:
    """A backbone with all that is known of it while others are probed."""

    source: ProbeSource
    task: Task
    config: ResolvedConfig
    preprocessing: Preprocessing
    remarks: tuple[str, ...]
    features: Features
    found: CrossValidation
    row: ProbeRow


def probe(config: ProbeConfig, *, run: str | Path | Run, overwrite: bool = False, progress: bool = True) -> ProbeReport:
    """Compare frozen backbones by linear probes, and write the best one as a run.

    Training images alone decide: each is answered by probes that have not seen it. The validation images are answered
    once, by the probe of all training images; test images are not touched.

    Args:
        config: configuration of the probe.
        run: run folder of the best probe; ``probe.json`` in it has all results.
        overwrite: delete the run in the folder.
        progress: show bars, and print a line on each backbone.

    Raises:
        ConfigError: another task than classification, or ``weights`` without a single model.
        DataError: the images cannot be used, or all of them are alike.
        CheckpointError: no backbone with weights can be had.
        RunError: the folder holds files that would be lost.
    """
    start = time.perf_counter()
    kind = find_task(config.task)
    if not kind.task.per_image:
        raise ConfigError(
            f"a probe tells classes of images apart, and cannot do the task '{config.task}'; leave --task out for "
            f"classification, or train: vitrail train --task {config.task}"
        )
    run = run if isinstance(run, Run) else Run(user_path(run))
    sources = find_sources(config.model, config.weights)
    with run.writing():
        check_folder(run, TrainConfig(), resume=False, overwrite=overwrite)
        data = kind.load_data(config.data, progress=progress)
        if not len(data.train):
            raise DataError(f"{data.source} has no training images; check its split, and val_fraction")
        samples, remarks = _limited(data.train, config)
        known = Availability()
        for line in (*data.remarks, *data.warnings):
            _tell(line, progress)
        probed = _probe_all(sources, config, data, samples, known, progress)
        if overwrite:
            clear(run)
        best, report = _report(probed, config, data, samples, (*known.notes, *remarks), start)
        _write(run, best, data, report)
    return report


def _tell(line: str, progress: bool) -> None:
    if progress and not LOG.isEnabledFor(logging.INFO):
        Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
    LOG.info("%s", line)


def _limited(train: ImageSet, config: ProbeConfig) -> tuple[ImageSet, tuple[str, ...]]:
    """The training images, no more than are wanted, in the shares of the classes; one of each class stays."""
    if len(train) <= config.num_images:
        return train, ()
    labels = train.labels.tolist()
    share = config.num_images / len(train)
    quota = {label: max(round(count * share), 1) for label, count in Counter(labels).items()}
    indices = []
    for index in draw_order(train.names, config.seed):
        if quota[labels[index]] > 0:
            quota[labels[index]] -= 1
            indices.append(index)
    chosen = train.subset(sorted(indices))
    return chosen, (f"{len(chosen)} of {len(train)} training images are probed (num_images={config.num_images})",)


def _probe_all(
    sources: list[ProbeSource],
    config: ProbeConfig,
    data: DataSplits[ImageSet],
    samples: ImageSet,
    known: Availability,
    progress: bool,
) -> list[_Probed]:
    """Every backbone that can be had, the best first, all timed side by side.

    Raises:
        CheckpointError: none can be had.
    """
    probed = []
    for source in sources:
        if known.worth_trying(source):
            _tell(f"Probing {source.label}", progress)
            try:
                probed.append(_probe_one(source, config, data, samples, progress))
            except (CheckpointError, ImageSizeError) as error:
                known.lost(source, error)
                _tell(known.notes[-1], progress)
    if not probed:
        raise known.nothing_left()
    probed.sort(key=lambda one: -one.row.score)
    _time(probed)
    return probed


def _probe_one(
    source: ProbeSource, config: ProbeConfig, data: DataSplits[ImageSet], samples: ImageSet, progress: bool
) -> _Probed:
    start, train_config = time.perf_counter(), _training_of(source, config)
    kind = find_task(config.task)
    spec = make_spec(kind.describe_data(data), train_config)
    task = kind.create(source.create(kind.num_outputs(spec), config.image_size), spec).eval()
    native = replace(
        task.backbone.preprocessing, image_size=task.backbone.config.image_size, pixel_range=data.pixel_range
    )
    origin = source_of(task.backbone.preprocessing_source, source.weights)
    preprocessing, sentence = decide_preprocessing(native, origin, train_config)

    def features_of(images: ImageSet) -> Features:
        return embed(
            task.backbone,
            images,
            preprocessing,
            batch_size=config.batch_size,
            num_workers=config.num_workers,
            cache=cache_folder("features") if config.cache is None else user_path(config.cache),
            progress=progress,
        )

    features = features_of(samples)
    val_features = features_of(data.val) if len(data.val) else None
    found, row = _judge(source, task, features, samples, val_features, data.val.labels.numpy(), config)
    return _Probed(
        source=source,
        task=task,
        config=train_config,
        preprocessing=preprocessing,
        remarks=(*task.backbone.remarks, sentence),
        features=features,
        found=found,
        row=replace(row, seconds=time.perf_counter() - start),
    )


def _training_of(source: ProbeSource, config: ProbeConfig) -> ResolvedConfig:
    """What the run of a probe keeps as its training."""
    return ResolvedConfig(
        recipe="probe",
        model=source.model,
        model_fields=source.fields,
        weights=source.weights,
        image_size=config.image_size,
        data=config.data,
        drop_path_rate=0.0,
        label_smoothing=0.0,
        seed=config.seed,
        num_workers=config.num_workers,
        batch_size=config.batch_size,
    )


def _judge(
    source: ProbeSource,
    task: Task,
    features: Features,
    samples: ImageSet,
    val_features: Features | None,
    val_labels: Indices,
    config: ProbeConfig,
) -> tuple[CrossValidation, ProbeRow]:
    """Fit the classifier of the task, and cross-validate it."""
    labels, groups, count = samples.labels.numpy(), groups_of(samples), len(task.classes)
    same: dict[str, Any] = {"class_weights": config.class_weights, "seed": config.seed, "groups": groups}
    head = fit_linear_head(features, labels, count, **same)
    head.give(task.backbone)
    found = cross_validate(features, labels, count, strength=head.strength, **same)
    curve = learning_curve(features, labels, count, strength=head.strength, **same)
    val_top1 = None
    if val_features is not None:
        val_top1 = float(np.mean(head.logits(val_features).argmax(axis=1) == val_labels))
    return found, ProbeRow(
        label=source.label,
        model=source.model,
        weights=source.weights,
        linear=score_interval(found, found.linear),
        nearest=score_interval(found, found.nearest),
        neighbours=found.neighbours,
        val_top1=val_top1,
        num_params=sum(parameter.numel() for parameter in task.parameters()),
        image_size=task.backbone.config.image_size,
        strength=head.strength,
        curve=tuple(curve),
        trend=trend_of(curve),
        seconds=0.0,
    )


def _time(probed: list[_Probed]) -> None:
    """Measure one image in PyTorch, all backbones side by side with one thread."""
    threads, draw = torch.get_num_threads(), np.random.default_rng(0)
    calls = {}
    for number, one in enumerate(probed):
        session = open_session(one.task, "torch", 1)
        image = draw.standard_normal((1, 3, *one.preprocessing.image_size), dtype=np.float32)
        calls[str(number)] = lambda session=session, image=image: session(image)
    try:
        timings = measure(calls, TIMING)
    finally:
        torch.set_num_threads(threads)
    for number, one in enumerate(probed):
        found = timings[str(number)]
        if found.wall:
            wall, cpu = statistics.median(found.wall), statistics.median(found.cpu)
            one.row = replace(one.row, latency_ms=1e3 * wall, cpu_ms=1e3 * cpu, contended=is_contended(wall, cpu, 1))


def _report(
    probed: list[_Probed],
    config: ProbeConfig,
    data: DataSplits[ImageSet],
    samples: ImageSet,
    notes: tuple[str, ...],
    start: float,
) -> tuple[_Probed, ProbeReport]:
    """The backbone to fine-tune, and what to say of all."""
    rows = tuple(one.row for one in probed)
    chosen, why = choose(rows, [one.found for one in probed])
    best = probed[chosen]
    counts = np.bincount(samples.labels.numpy(), minlength=len(data.classes))
    majority = data.classes[int(counts.argmax())], float(counts.max() / counts.sum())
    if not best.found.judged.any():
        notes = (*notes, "no class has two training images, so that nothing can be cross-validated")
    return best, ProbeReport(
        source=data.source,
        classes=data.classes,
        counts=tuple(counts.tolist()),
        num_val=len(data.val),
        majority=majority,
        rows=rows,
        chosen=chosen,
        advice=advice(why, majority, best.row),
        notes=notes,
        images=ProbedImages(
            samples=samples, features=best.features, answers=best.found, preprocessing=best.preprocessing
        ),
        next_command=(
            f"vitrail train --data {typed_path(config.data.path)} {best.source.typed()}{typed_size(config.image_size)}"
            f"{typed_imports()}"
        ),
        seconds=time.perf_counter() - start,
    )


def _write(run: Run, best: _Probed, data: DataSplits[ImageSet], report: ProbeReport) -> None:
    """The run of the best probe, in the files of a training."""
    told = (
        f"the backbone is frozen; its classifier is a linear probe of {len(report.images.samples)} training images "
        f"(logistic regression, C={best.row.strength:g})"
    )
    describe(run, best.config, best.task, data, best.preprocessing, "32-true", (*best.remarks, told))
    scores = {} if best.row.val_top1 is None else {"val_top1": best.row.val_top1}
    kept = {"keep": "probe", "epoch": 0, "num_epochs": 0, "seconds": round(best.row.seconds, 3)} | scores
    write_json(run.probe, report.to_dict())
    keep_weights(run, best.task.state_dict(), kept)
