"""Lightning's Trainer for a task: loop, devices, output and interruption."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from vitrail.core.errors import ConfigError, VitrailError
from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits, TrainLoader, eval_loader, train_loader
from vitrail.tasks import Task, find_task
from vitrail.training.adversarial import AdversarialModule
from vitrail.training.batch_norm import BatchNormSync
from vitrail.training.config import ResolvedConfig, TrainConfig
from vitrail.training.distillation.distiller import Distiller
from vitrail.training.epoch_lines import EpochLines
from vitrail.training.loggers import begin_logging, check_loggers, end_logging, make_loggers
from vitrail.training.module import TrainingModule, weight_average
from vitrail.training.recorder import (
    AtomicCheckpointIO,
    TrainingFiles,
    is_patience_over,
    read_checkpoint,
    recorded_rows,
    write_metrics,
)
from vitrail.training.time_limit import TimeLimit, time_is_over
from vitrail.training.uneven import drawn_order

QUIET = (
    # Advice for authors of training loops.
    r".*does not have many workers.*",
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*This DataLoader will create .* worker processes.*",
    r".*Starting from v1.9.0.*",
    r".*LeafSpec.*is deprecated.*",
)


def fit_task(
    trainer: Trainer,
    task: Task,
    config: ResolvedConfig,
    splits: DataSplits[Any],
    preprocessing: Preprocessing,
    files: TrainingFiles,
    *,
    resume: bool,
    distiller: Distiller | None = None,
) -> None:
    """Train the epochs that the latest checkpoint lacks.

    Args:
        trainer: trainer from :func:`make_trainer`.
        task: new task; it is changed in place.
        config: configuration of the training.
        splits: training and validation images.
        preprocessing: conversion of an image to the input of the task.
        files: paths of checkpoints and metrics.
        resume: continue from the latest checkpoint if there is one.
        distiller: what a teacher adds to the loss; None without a teacher.
    """
    module = (
        AdversarialModule(task, config, preprocessing)
        if task.adversarial
        else TrainingModule(task, config, preprocessing, distiller)
    )
    module.limit = limit_of(trainer)
    resumable = resume and files.last.exists()
    if resumable:
        checkpoint = read_checkpoint(files.last)
        rows = recorded_rows(checkpoint)
        if trainer.is_global_zero:
            write_metrics(files.metrics, rows)  # the process may have been killed between the two files
        patience_over = is_patience_over(rows, find_task(config.task).score(config.keep_score), config.patience)
        if len(rows) >= config.epochs or patience_over or time_is_over(checkpoint):
            return
    loaders = Loaders(config, splits, preprocessing)
    trainer.loggers = make_loggers(config, files.logs.parent)
    try:
        begin_logging(trainer, config)
        trainer.fit(module, loaders, ckpt_path=str(files.last) if resumable else None, weights_only=True)
    finally:
        end_logging(trainer, files.logs.parent)


class Loaders(LightningDataModule):
    """The loaders of one process; Lightning makes them when the number of processes is known."""

    def __init__(self, config: ResolvedConfig, splits: DataSplits[Any], preprocessing: Preprocessing) -> None:
        super().__init__()
        self.config = config
        self.splits = splits
        self.preprocessing = preprocessing

    def train_dataloader(self) -> TrainLoader:
        return train_loader(
            self.splits.train,
            self.preprocessing,
            self.config.augment,
            batch_size=self.config.batch_size,
            num_workers=self.config.num_workers,
            seed=self.config.seed,
            num_classes=len(self.splits.classes),
            accumulate=self.config.accumulate,
            order=drawn_order(self.config, self.splits),
            num_views=self.config.distill.cache_teacher,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """This process's share of the validation images; no image is repeated, so the metrics are exact."""
        assert self.trainer is not None
        share = range(self.trainer.global_rank, len(self.splits.val), self.trainer.world_size)
        return eval_loader(
            self.splits.val.subset(share),
            self.preprocessing,
            batch_size=self.config.batch_size,
            num_workers=self.config.num_workers,
        )


def resolve_precision(config: TrainConfig) -> str:
    """Lightning's name of the precision; "auto" is bf16 if a GPU computes in it without emulation.

    On CPUs "auto" is 32 bits: few CPUs have bf16 units, and PyTorch's fallback is slower than float.
    """
    if config.precision != "auto":
        return config.precision
    on_gpu = config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def make_trainer(config: TrainConfig, files: TrainingFiles, lines: EpochLines) -> Trainer:
    """Lightning's Trainer from a configuration; :func:`settle` completes it.

    Raises:
        ConfigError: this machine has no such devices, or Lightning has no such strategy or precision.
    """
    check_loggers(config)
    adversarial = find_task(config.task).task.adversarial
    if adversarial and config.accumulate > 1:
        raise ConfigError(
            f"task {config.task} takes a step with every batch; leave it out", accumulate=config.accumulate
        )
    callbacks: list[Callback] = [*lines.callbacks]
    try:
        return Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=resolve_precision(config),  # type: ignore[arg-type]  # Lightning checks the name
            max_epochs=config.epochs or 1,  # see settle()
            accumulate_grad_batches=config.accumulate,
            gradient_clip_val=None if adversarial else config.gradient_clip or None,
            deterministic=config.deterministic,
            callbacks=callbacks,
            logger=False,  # fit_task makes them: one of them writes as soon as it is made
            plugins=[AtomicCheckpointIO(), BatchNormSync()],
            default_root_dir=files.logs.parent,
            use_distributed_sampler=False,  # our loaders divide the images
            num_sanity_val_steps=0,  # it draws random numbers that a resumed run does not draw
            enable_progress_bar=False,  # ours tells the whole
            enable_model_summary=False,
            log_every_n_steps=10,
        )
    except VitrailError:
        raise
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:  # Lightning raises all of these
        given = {name: getattr(config, name) for name in ("accelerator", "devices", "strategy", "precision")}
        raise ConfigError(f"they do not work here: {' '.join(str(error).split())}", **given) from error


def settle(trainer: Trainer, config: ResolvedConfig) -> None:
    """Give a trainer what is known when the data are read: epochs, warm-up, and the average of the weights."""
    trainer.fit_loop.max_epochs = config.epochs
    if (limit := limit_of(trainer)) is not None:
        limit.warmup_epochs = config.warmup_epochs
    if config.ema_decay:  # first: the average must be in place when others look at the weights
        trainer.callbacks.insert(0, weight_average(config.ema_decay))  # type: ignore[attr-defined]  # it is set later


def limit_of(trainer: Trainer) -> TimeLimit | None:
    """The limit of time of a training, if it has one."""
    return next((one for one in trainer.callbacks if isinstance(one, TimeLimit)), None)  # type: ignore[attr-defined]


def is_interruption(error: BaseException) -> bool:
    """Whether the error is Ctrl-C (SystemExit in Lightning) or SIGTERM (SIGTERMException in Lightning)."""
    return isinstance(error, KeyboardInterrupt | SIGTERMException) or isinstance(error.__context__, KeyboardInterrupt)


@contextmanager
def contained() -> Iterator[None]:
    """Suppress Lightning's notices, and undo its changes to the process."""
    with _quiet(), _process_state_restored():
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress notices on hardware and tips."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=PossibleUserWarning)
        for message in QUIET:
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _process_state_restored() -> Iterator[None]:
    """Undo two changes of Lightning: Ctrl-C is ignored after the first one, and PyTorch stays deterministic."""
    handler = signal.getsignal(signal.SIGINT)
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
