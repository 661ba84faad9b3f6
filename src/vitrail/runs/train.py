"""Training of a run from a configuration."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from vitrail.core.errors import ConfigError, DataError, TrainingError, VitrailError
from vitrail.core.faults import Fault, find_fault
from vitrail.core.paths import typed_path, user_path
from vitrail.core.progress import Bar, Seconds, tell, time_text
from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits
from vitrail.runs.folder import FREE_FIELDS, check_folder, clear, describe, finish, is_finished, training_files
from vitrail.runs.load import make_spec, model_fields
from vitrail.runs.opening import opening_line
from vitrail.runs.preprocessing import decide_preprocessing, source_of
from vitrail.runs.recipe import decide, note_recipe, start_from_probe, starts_from_probe, verdict, with_model
from vitrail.runs.run import Run
from vitrail.runs.teaching import note_teacher, note_weights, teach
from vitrail.soundness.balance import describe_balance
from vitrail.tasks import Task, TaskKind, find_task
from vitrail.training.batch_size import choose_batch_size
from vitrail.training.config import AUTO, ResolvedConfig, TrainConfig, completed
from vitrail.training.distillation.distiller import Distiller
from vitrail.training.epoch_lines import EpochLines
from vitrail.training.freezing import freezing_remarks
from vitrail.training.loop import contained, fit_task, is_interruption, make_trainer, settle
from vitrail.training.lora import add_adapters
from vitrail.training.module import seed_everything
from vitrail.training.recipes import Decided
from vitrail.training.recorder import Judge, Recorder
from vitrail.training.time_limit import TimeLimit
from vitrail.training.uneven import check_uneven, set_class_loss, uneven_remarks

LOG = logging.getLogger(__name__)
IN_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process.*\n[\w.]*\1: (?P<message>.*)", re.DOTALL)
"""An error in a process that loads images, as PyTorch raises it here: with a traceback as its message."""


def train(
    config: TrainConfig,
    *,
    run: str | Path | Run,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    clock: Seconds = time.perf_counter,
    follows: Callable[[float], float] = lambda _step_seconds: 0.0,
    judge: Judge = lambda _rows, _num_epochs: "",
) -> Run:
    """Train a model and write it, with its description, to a run folder.

    A run that is killed and resumed has the result of an uninterrupted run: on a CPU the weights are equal bit for bit.
    The state is saved at the end of every epoch; an interrupted epoch is repeated.

    Args:
        config: configuration of the training.
        run: run folder.
        resume: continue an interrupted run, or start one if there is none; a finished run is not changed.
        overwrite: delete the run in the folder.
        progress: print what is logged (a line on the training, lines on its data, one line an epoch with the time that
            is left), and show a bar of the running epoch in a terminal.
        clock: seconds, from which the time that is left follows.
        follows: function from the seconds of a training step to those of what follows the training, such as other
            stages. They are shown, and kept of ``config.minutes``.
        judge: function from the epochs that are done, and the number of all, to why training ends here; "" goes on. The
            run is finished then, like one whose patience is over. It is asked in every process.

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
    recorder = Recorder(training_files(run), find_task(config.task).score(config.keep_score), config.patience, judge)
    lines = _lines(config, recorder, follows, clock, progress=progress)
    with contained():
        trainer = make_trainer(config, training_files(run), lines)
        try:
            with run.writing():
                _train(trainer, config, run, resume=resume, overwrite=overwrite, progress=progress)
        except (KeyboardInterrupt, SystemExit) as error:
            if not is_interruption(error):
                raise
            raise TrainingError(
                f"training was stopped after {_so_far(lines, trainer)}; "
                f"continue it with: vitrail train --run {typed_path(run.folder)} --resume (and the same options)"
            ) from None
        except VitrailError as error:
            if (found := IN_WORKER.match(error.complaint)) is None:
                raise
            raise type(error)(found["message"].strip()) from error
        except Exception as error:
            if (fault := find_fault(error)) is None:
                raise
            raise TrainingError(_told(fault, config, run, _so_far(lines, trainer))) from error
    return run


def _lines(
    config: TrainConfig, recorder: Recorder, follows: Callable[[float], float], clock: Seconds, *, progress: bool
) -> EpochLines:
    """What shows the training, and limits its time."""
    bar = Bar(wanted=progress, clock=clock)

    def told(line: str) -> None:
        bar.hide()  # a line beside it would tear it
        tell(LOG, line, progress=progress)

    limit = None
    if config.minutes is not None:
        limit = TimeLimit(config.minutes, tell=told, clock=clock, follows=follows)
    return EpochLines(recorder, told, bar=bar, limit=limit, follows=follows, clock=clock)


def _so_far(lines: EpochLines, trainer: Trainer) -> str:
    """How much of a training is done."""
    done = len(lines.recorder.rows)
    if lines.limit is None:
        return f"{done} of {trainer.max_epochs} epochs"
    return f"{done} epoch{'s' * (done != 1)} and {time_text(lines.limit.elapsed)} of {lines.limit.minutes:g} min"


def _told(fault: Fault, config: TrainConfig, run: Run, so_far: str) -> str:
    """A fault of the machine during training, how to continue, and how to start again with less."""
    if config.batch_size == AUTO and run.description.exists():
        config = run.read().training  # with the size that was decided
    given = {name: f"{name}={value}" for name in fault.settings if (value := getattr(config, name))}
    free = [text for name, text in given.items() if name in FREE_FIELDS]
    fixed = [text for name, text in given.items() if name not in FREE_FIELDS]
    end = f"; or start again with --overwrite and a lower {' or '.join(fixed)}" if fixed else ""
    return (
        f"{fault.what}; training was stopped after {so_far}; {fault.advice(free)}, and "
        f"continue with: vitrail train --run {typed_path(run.folder)} --resume (and the same options){end}"
    )


def _train(trainer: Trainer, config: TrainConfig, run: Run, *, resume: bool, overwrite: bool, progress: bool) -> None:
    if first := trainer.is_global_zero:
        check_folder(run, config, resume=resume, overwrite=overwrite)
    if resume and is_finished(run):
        if first:
            tell(LOG, f"run {run.folder} is already trained; nothing to do", progress=progress)
        return
    kind = find_task(config.task)
    kind.read_options(config.options)
    check_uneven(kind.task, config)
    begun = run.read() if resume and run.description.exists() else None
    asked, chosen = (completed(config, begun.training), "") if begun else with_model(config)
    splits = _load_splits(kind, config, progress=progress and first)
    decided = decide(asked, splits)
    seed_everything(config.seed)
    task = _make_task(kind, decided.config, splits)
    add_adapters(task, decided.config)
    set_class_loss(task, decided.config, splits)
    preprocessing, sentence = _preprocessing_of(task, decided.config, splits)
    if begun:  # the folder of the weights may hold others by now
        preprocessing = begun.preprocessing
    remarks = (*task.backbone.remarks, *((sentence,) if task.takes_images else ()))
    remarks += (*freezing_remarks(asked), *uneven_remarks(asked))
    if asked.batch_size == AUTO:
        size, told = _batch_size_of(decided.config, task, splits, preprocessing, trainer)
        decided, remarks = decide(replace(asked, batch_size=size), splits), (*remarks, told)
    distiller, taught = teach(decided.config, task, preprocessing, run, begun)
    settle(trainer, decided.config)
    if first:
        lines = [chosen, *taught, *splits.remarks, *remarks, *splits.warnings, *describe_balance(splits)]
        _tell([opening_line(decided, task, splits, preprocessing, trainer), *lines], progress)
        if overwrite:
            clear(run)
        describe(run, decided.config, task, splits, preprocessing, trainer.precision, remarks)
        if begun is None or (begun.recipe is None and not training_files(run).last.exists()):  # or killed in between
            note_recipe(run, decided, splits)
    if distiller is not None:
        _tell([note_teacher(run, distiller, decided.config, splits, preprocessing, first=first)], progress and first)
    _fit(trainer, task, decided, splits, preprocessing, run, resume=resume, progress=progress, distiller=distiller)


def _fit(
    trainer: Trainer,
    task: Task,
    decided: Decided,
    splits: DataSplits[Any],
    preprocessing: Preprocessing,
    run: Run,
    *,
    resume: bool,
    progress: bool,
    distiller: Distiller | None = None,
) -> None:
    """Fit the probe and train the epochs, as the recipe has them, and keep the weights."""
    settled, shown = decided.config, progress and trainer.is_global_zero
    if starts_from_probe(decided) and not (resume and training_files(run).last.exists()):
        _tell([start_from_probe(run, task, splits, preprocessing, settled, trainer)], shown)
    if decided.recipe != "probe":
        files = training_files(run)
        fit_task(trainer, task, settled, splits, preprocessing, files, resume=resume, distiller=distiller)
    if trainer.is_global_zero:
        weights = "" if distiller is None else note_weights(run, distiller)
        recorder = trainer.checkpoint_callback
        finish(run, settled, recorder.stopped if isinstance(recorder, Recorder) else "")
        done = run.read().trained
        _tell([done.stopped if done else "", weights, verdict(run)], progress)


def _load_splits(kind: TaskKind, config: TrainConfig, *, progress: bool) -> DataSplits[Any]:
    splits = kind.load_data(config.data, progress=progress)
    for name, part in (("training", splits.train), ("validation", splits.val)):
        if len(part) == 0:
            raise DataError(f"{splits.source} has no {name} images; check its split, and val_fraction")
    return splits


def _preprocessing_of(task: Task, config: ResolvedConfig, splits: DataSplits[Any]) -> tuple[Preprocessing, str]:
    """Conversion of an image to the input of the task, and a sentence on its origin."""
    native = task.backbone.preprocessing
    known = replace(
        native,
        image_size=task.backbone.config.image_size,
        crop_fraction=task.crop_fraction or native.crop_fraction,
        pixel_range=splits.pixel_range,
    )
    return decide_preprocessing(known, source_of(task.backbone.preprocessing_source, config.weights), config)


def _batch_size_of(
    config: ResolvedConfig, task: Task, splits: DataSplits[Any], preprocessing: Preprocessing, trainer: Trainer
) -> tuple[int, str]:
    """The batch size in place of "auto", and what bounds it."""
    chosen = choose_batch_size(
        task,
        config,
        splits,
        preprocessing,
        trainer.strategy.root_device,
        world_size=trainer.world_size,
        precision=str(trainer.precision),
    )
    return chosen.size, chosen.told


def _tell(lines: Sequence[str], progress: bool) -> None:
    """Show lines; empty ones are left out."""
    for line in filter(None, lines):
        tell(LOG, line, progress=progress)


def _make_task(kind: TaskKind, config: ResolvedConfig, splits: DataSplits[Any]) -> Task:
    spec = make_spec(kind.describe_data(splits), config)
    backbone = kind.make_backbone(
        config.model,
        num_classes=kind.num_outputs(spec),
        drop_path_rate=config.drop_path_rate,
        weights=config.weights,
        replace_head=True,
        **model_fields(config),
    )
    return kind.create(backbone, spec)
