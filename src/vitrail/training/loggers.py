"""Where the curves of a training go beside metrics.csv: Lightning's loggers, inside the run folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from vitrail.core.extras import import_extra
from vitrail.training.config import LoggerName, TrainConfig

PROJECT = "vitrail"
"""Project of W&B and experiment of MLflow that runs belong to, unless the environment names another."""

MLFLOW_URI = "MLFLOW_TRACKING_URI"


def _tensorboard(folder: Path) -> Logger:
    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)


def _csv(folder: Path) -> Logger:
    return CSVLogger(folder, name="csv")


def _wandb(folder: Path) -> Logger:
    import_extra("wandb", "wandb", "wandb")
    return WandbLogger(name=folder.name, save_dir=folder, project=os.environ.get("WANDB_PROJECT", PROJECT))


def _mlflow(folder: Path) -> Logger:
    import_extra("mlflow", "mlflow-skinny", "mlflow")
    where = os.environ.get(MLFLOW_URI) or (folder.absolute() / "mlruns").as_uri()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    return MLFlowLogger(name, run_name=folder.name, tracking_uri=where)


MAKERS: dict[LoggerName, Callable[[Path], Logger]] = {
    "tensorboard": _tensorboard,
    "csv": _csv,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


def make_loggers(config: TrainConfig, folder: Path) -> list[Logger]:
    """The loggers of a configuration; nothing is written before they log.

    Args:
        config: configuration of the training.
        folder: folder of the run, which they write to.

    Raises:
        MissingDependencyError: the package of one is not installed.
    """
    return [MAKERS[name](folder) for name in dict.fromkeys(config.loggers)]


def begin_logging(trainer: Trainer, config: TrainConfig) -> None:
    """Log the configuration, where the logger is not TensorBoard's, which shows none."""
    for logger in trainer.loggers:
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(config.to_dict())


def end_logging(trainer: Trainer) -> None:
    """Close what would else go on in the next training of this process."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            logger.experiment.finish()
