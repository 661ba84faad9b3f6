"""From a configuration to a trained run folder."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from torch.utils.data import DataLoader

from vitrail.core.errors import ConfigError, DataError, TrainingError
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits, TrainLoader, eval_loader, train_loader
from vitrail.tasks import Task, TaskKind, TaskSpec, find_task
from vitrail.training.adversarial import AdversarialModule
from vitrail.training.config import TrainConfig
from vitrail.training.folder import check_folder, clear, describe, finish, is_finished, logs_folder, remove_leftovers
from vitrail.training.module import TrainingModule, seed_everything, weight_average
from vitrail.training.recorder import (
    AtomicCheckpointIO,
    Recorder,
    last_checkpoint,
    read_checkpoint,
    recorded_rows,
    write_metrics,
)

QUIET = (
    # Advice to people who write training loops, not to those who use ours.
    r".*does not have many workers.*",
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*This DataLoader will create .* worker processes.*",
    r".*Starting from v1.9.0.*",
    r".*LeafSpec.*is deprecated.*",
)


def train(
    config: TrainConfig, *, run: str | Path | Run, resume: bool = False, overwrite: bool = False, progress: bool = True
) -> Run:
    """Train a model and leave it, with all that describes it, in a run folder.

    Killed at any moment, a run that is resumed ends as it would have ended uninterrupted: on a CPU the weights are
    equal bit for bit. State is kept at the end of every epoch; an epoch that was cut short is repeated.

    Args:
        config: what to train, on what, and how.
        run: the folder.
        resume: continue an interrupted run (from the start, if there is none); a finished one is left as it is.
        overwrite: delete the run that is in the folder.
        progress: show a progress bar and say what is done; otherwise nothing is printed.

    Returns:
        the run, with ``model.safetensors``, ``metrics.csv``, ``run.json``, checkpoints and TensorBoard logs.

    Raises:
        ConfigError: a value that this machine or the model does not allow.
        DataError: images that cannot be trained on.
        RunError: the folder holds something that would be lost, or a run with other settings.
        TrainingError: the loss is no number, memory ran out, or training was stopped (Ctrl-C, SIGTERM).
        VitrailError: a file cannot be written.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite contradict each other; pass only one of --resume and --overwrite")
    run = run if isinstance(run, Run) else Run(Path(run))
    recorder = Recorder(run)
    with _quiet(), _process_state_restored():
        try:
            trainer = _make_trainer(config, run, recorder, progress=progress)
            _train(trainer, config, run, resume=resume, overwrite=overwrite, progress=progress)
        except (KeyboardInterrupt, SystemExit) as error:
            if not _is_interruption(error):
                raise
            raise TrainingError(
                f"training was stopped after {len(recorder.rows)} of {config.epochs} epochs; "
                f"continue it with: vitrail train --run {run.folder} --resume (and the same options)"
            ) from None
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"the GPU's memory is too small for batch_size={config.batch_size}; "
                "lower it, or pass --precision bf16-mixed"
            ) from error
    return run


def _train(trainer: Trainer, config: TrainConfig, run: Run, *, resume: bool, overwrite: bool, progress: bool) -> None:
    if trainer.is_global_zero:
        check_folder(run, config, resume=resume, overwrite=overwrite)
    if resume and is_finished(run):
        if progress and trainer.is_global_zero:
            Console(stderr=True).print(f"run {run.folder} is already trained; nothing to do", highlight=False)
        return
    kind = find_task(config.task)
    kind.read_options(config.options)
    splits = kind.load_data(config.data, progress=progress and trainer.is_global_zero)
    for name, part in (("training", splits.train), ("validation", splits.val)):
        if len(part) == 0:
            raise DataError(f"{splits.source} has no {name} images; check its split, and val_fraction")
    seed_everything(config.seed)
    task = _make_task(kind, config, splits)
    native = task.backbone.preprocessing
    preprocessing = replace(
        native,
        image_size=task.backbone.config.image_size,
        crop_fraction=config.crop_fraction or task.crop_fraction or native.crop_fraction,
    )
    if trainer.is_global_zero:
        if overwrite:
            clear(run)
        describe(run, config, task, splits, preprocessing, trainer.precision)
        remove_leftovers(run)
    module = (AdversarialModule if task.adversarial else TrainingModule)(task, config, preprocessing)
    _fit(trainer, module, Loaders(config, splits, preprocessing), run, resume=resume)
    if trainer.is_global_zero:
        finish(run, config, task.scores[0])


def _fit(trainer: Trainer, module: TrainingModule, loaders: Loaders, run: Run, *, resume: bool) -> None:
    """Train the epochs that the latest checkpoint does not have yet."""
    path = last_checkpoint(run)
    resumable = resume and path.exists()
    if resumable:
        rows = recorded_rows(read_checkpoint(path))
        if trainer.is_global_zero:
            write_metrics(run, rows)  # the process may have been killed between the two files
        if len(rows) >= module.config.epochs:
            return
    trainer.fit(module, loaders, ckpt_path=str(path) if resumable else None, weights_only=True)


def _make_task(kind: TaskKind, config: TrainConfig, splits: DataSplits[Any]) -> Task:
    spec = TaskSpec.of(kind.describe_data(splits), config.options, config.label_smoothing)
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


class Loaders(LightningDataModule):
    """The loaders of one process; made by Lightning once it is known how many processes there are."""

    def __init__(self, config: TrainConfig, splits: DataSplits[Any], preprocessing: Preprocessing) -> None:
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
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """This process's share of the validation images, none of them twice, so that the metrics are exact."""
        assert self.trainer is not None
        share = range(self.trainer.global_rank, len(self.splits.val), self.trainer.world_size)
        return eval_loader(
            self.splits.val.subset(share),
            self.preprocessing,
            batch_size=self.config.batch_size,
            num_workers=self.config.num_workers,
        )


def resolve_precision(config: TrainConfig) -> str:
    """Lightning's name of the precision; "auto" takes bf16 where a GPU computes in it rather than emulates it.

    CPUs are left at 32 bits: few have bf16 units, and PyTorch's fallback is slower than float.
    """
    if config.precision != "auto":
        return config.precision
    on_gpu = config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def _make_trainer(config: TrainConfig, run: Run, recorder: Recorder, *, progress: bool) -> Trainer:
    """
    Raises:
        ConfigError: this machine has no such devices, or Lightning knows no such strategy or precision.
    """
    callbacks: list[Callback] = [recorder]
    if config.ema_decay:
        callbacks.append(weight_average(config.ema_decay))
    if progress:
        callbacks.append(RichProgressBar())
    try:
        return Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=resolve_precision(config),  # type: ignore[arg-type]  # Lightning checks the name
            max_epochs=config.epochs,
            gradient_clip_val=None if find_task(config.task).task.adversarial else config.gradient_clip or None,
            deterministic=config.deterministic,
            callbacks=callbacks,
            logger=TensorBoardLogger(run.folder, name=logs_folder(run).name, version="", default_hp_metric=False),
            plugins=[AtomicCheckpointIO()],
            default_root_dir=run.folder,
            use_distributed_sampler=False,  # our loaders divide the images themselves
            num_sanity_val_steps=0,  # it would draw random numbers that a resumed run does not
            enable_progress_bar=progress,
            enable_model_summary=False,
            log_every_n_steps=10,
        )
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:  # whichever Lightning raises
        raise ConfigError(
            f"accelerator={config.accelerator!r}, devices={config.devices!r}, strategy={config.strategy!r}, "
            f"precision={config.precision!r} do not work here: {' '.join(str(error).split())}"
        ) from error


def _is_interruption(error: BaseException) -> bool:
    """Ctrl-C, which Lightning turns into SystemExit, or SIGTERM, which it turns into an exception of its own."""
    return isinstance(error, KeyboardInterrupt | SIGTERMException) or isinstance(error.__context__, KeyboardInterrupt)


@contextmanager
def _quiet() -> Iterator[None]:
    """No notices on hardware, no tips."""
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
    """What Lightning leaves changed: it ignores Ctrl-C after the first one, and keeps PyTorch deterministic."""
    handler = signal.getsignal(signal.SIGINT)
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
