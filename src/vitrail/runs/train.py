"""Training of a run from a configuration."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from rich.console import Console

from vitrail.core.errors import ConfigError, DataError, TrainingError, VitrailError
from vitrail.core.faults import Fault, find_fault
from vitrail.core.paths import typed_path, user_path
from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits
from vitrail.runs.folder import FREE_FIELDS, check_folder, clear, describe, finish, is_finished, training_files
from vitrail.runs.load import make_spec
from vitrail.runs.opening import opening_line
from vitrail.runs.preprocessing import decide_preprocessing, source_of
from vitrail.runs.run import Run
from vitrail.tasks import Task, TaskKind, find_task
from vitrail.training.batch_size import choose_batch_size
from vitrail.training.config import AUTO, TrainConfig
from vitrail.training.freezing import freezing_remarks
from vitrail.training.loop import contained, fit_task, is_interruption, make_trainer
from vitrail.training.lora import add_adapters
from vitrail.training.module import seed_everything
from vitrail.training.recorder import Recorder
from vitrail.training.uneven import check_uneven, set_class_loss, uneven_remarks

LOG = logging.getLogger(__name__)
IN_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process.*\n[\w.]*\1: (?P<message>.*)", re.DOTALL)
"""An error in a process that loads images, as PyTorch raises it here: with a traceback as its message."""


def train(
    config: TrainConfig, *, run: str | Path | Run, resume: bool = False, overwrite: bool = False, progress: bool = True
) -> Run:
    """Train a model and write it, with its description, to a run folder.

    A run that is killed and resumed has the result of an uninterrupted run: on a CPU the weights are equal bit for bit.
    The state is saved at the end of every epoch; an interrupted epoch is repeated.

    Args:
        config: configuration of the training.
        run: run folder.
        resume: continue an interrupted run, or start one if there is none; a finished run is not changed.
        overwrite: delete the run in the folder.
        progress: show a progress bar, and print what is logged: a line on the training, and lines on its data.

    Returns:
        the run, with ``model.safetensors``, ``metrics.csv``, ``run.json``, checkpoints and TensorBoard logs.

    Raises:
        ConfigError: this machine or the model does not allow a value.
        DataError: the images cannot be used for training.
        RunError: the folder holds files that would be lost, or a run with other settings.
        TrainingError: the loss is not finite, training was stopped (Ctrl-C, SIGTERM), or by a fault of the machine.
        VitrailError: a file cannot be written.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite contradict each other; pass only one of --resume and --overwrite")
    run = run if isinstance(run, Run) else Run(user_path(run))
    recorder = Recorder(training_files(run), find_task(config.task).score(config.keep_score), config.patience)
    with contained():
        try:
            trainer = make_trainer(config, training_files(run), recorder, progress=progress)
            with run.writing():
                _train(trainer, config, run, resume=resume, overwrite=overwrite, progress=progress)
        except (KeyboardInterrupt, SystemExit) as error:
            if not is_interruption(error):
                raise
            raise TrainingError(
                f"training was stopped after {len(recorder.rows)} of {config.epochs} epochs; "
                f"continue it with: vitrail train --run {typed_path(run.folder)} --resume (and the same options)"
            ) from None
        except VitrailError as error:
            if (found := IN_WORKER.match(error.complaint)) is None:
                raise
            raise type(error)(found["message"].strip()) from error
        except Exception as error:
            if (fault := find_fault(error)) is None:
                raise
            raise TrainingError(_told(fault, config, run, len(recorder.rows))) from error
    return run


def _told(fault: Fault, config: TrainConfig, run: Run, num_epochs: int) -> str:
    """A fault of the machine during training, how to continue, and how to start again with less."""
    if config.batch_size == AUTO and run.description.exists():
        config = run.read().training  # with the size that was decided
    given = {name: f"{name}={value}" for name in fault.settings if (value := getattr(config, name))}
    free = [text for name, text in given.items() if name in FREE_FIELDS]
    fixed = [text for name, text in given.items() if name not in FREE_FIELDS]
    end = f"; or start again with --overwrite and a lower {' or '.join(fixed)}" if fixed else ""
    return (
        f"{fault.what}; training was stopped after {num_epochs} of {config.epochs} epochs; {fault.advice(free)}, and "
        f"continue with: vitrail train --run {typed_path(run.folder)} --resume (and the same options){end}"
    )


def _train(trainer: Trainer, config: TrainConfig, run: Run, *, resume: bool, overwrite: bool, progress: bool) -> None:
    if config.batch_size == AUTO and resume and run.description.exists():
        config = replace(config, batch_size=run.read().training.batch_size)
    if trainer.is_global_zero:
        check_folder(run, config, resume=resume, overwrite=overwrite)
    if resume and is_finished(run):
        if progress and trainer.is_global_zero:
            Console(stderr=True).print(f"run {run.folder} is already trained; nothing to do", highlight=False)
        return
    kind = find_task(config.task)
    kind.read_options(config.options)
    check_uneven(kind.task, config)
    splits = _load_splits(kind, config, progress=progress and trainer.is_global_zero)
    seed_everything(config.seed)
    task = _make_task(kind, config, splits)
    add_adapters(task, config)
    set_class_loss(task, config, splits)
    preprocessing, sentence = _decide_pixels(task, config, splits)
    if resume and run.description.exists():  # the folder of the weights may hold others by now
        preprocessing = run.read().preprocessing
    remarks = (*task.backbone.remarks, *((sentence,) if task.takes_images else ()))
    remarks += (*freezing_remarks(config), *uneven_remarks(config))
    if config.batch_size == AUTO:
        config, told = _with_batch_size(config, task, splits, preprocessing, trainer)
        remarks += (told,)
    if trainer.is_global_zero:
        opening = opening_line(config, task, splits, preprocessing, trainer)
        for line in (opening, *splits.remarks, *remarks, *splits.warnings):
            _tell(line, progress)
        if overwrite:
            clear(run)
        describe(run, config, task, splits, preprocessing, trainer.precision, remarks)
    fit_task(trainer, task, config, splits, preprocessing, training_files(run), resume=resume)
    if trainer.is_global_zero:
        finish(run, config)
        if (done := run.read().trained) is not None and done.stopped:
            _tell(done.stopped, progress)


def _load_splits(kind: TaskKind, config: TrainConfig, *, progress: bool) -> DataSplits[Any]:
    """
    Raises:
        DataError: the training or the validation part is empty.
    """
    splits = kind.load_data(config.data, progress=progress)
    for name, part in (("training", splits.train), ("validation", splits.val)):
        if len(part) == 0:
            raise DataError(f"{splits.source} has no {name} images; check its split, and val_fraction")
    return splits


def _decide_pixels(task: Task, config: TrainConfig, splits: DataSplits[Any]) -> tuple[Preprocessing, str]:
    """What becomes of an image before the task sees it, and a sentence on where that is from."""
    native = task.backbone.preprocessing
    known = replace(
        native,
        image_size=task.backbone.config.image_size,
        crop_fraction=task.crop_fraction or native.crop_fraction,
        pixel_range=splits.pixel_range,
    )
    return decide_preprocessing(known, source_of(task.backbone.preprocessing_source, config.weights), config)


def _with_batch_size(
    config: TrainConfig, task: Task, splits: DataSplits[Any], preprocessing: Preprocessing, trainer: Trainer
) -> tuple[TrainConfig, str]:
    """The configuration with a batch size in place of "auto", and what bounds it."""
    chosen = choose_batch_size(
        task,
        config,
        splits,
        preprocessing,
        trainer.strategy.root_device,
        world_size=trainer.world_size,
        precision=str(trainer.precision),
    )
    return replace(config, batch_size=chosen.size), chosen.told


def _tell(line: str, progress: bool) -> None:
    """Log a line, and print it where nobody listens but a person watches."""
    if progress and not LOG.isEnabledFor(logging.INFO):
        Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
    LOG.info("%s", line)


def _make_task(kind: TaskKind, config: TrainConfig, splits: DataSplits[Any]) -> Task:
    spec = make_spec(kind.describe_data(splits), config)
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in config.model_fields.items()
    }
    backbone = kind.make_backbone(
        config.model,
        num_classes=kind.num_outputs(spec),
        image_size=config.image_size,
        drop_path_rate=config.drop_path_rate,
        weights=config.weights,
        replace_head=True,
        **fields,
    )
    return kind.create(backbone, spec)
