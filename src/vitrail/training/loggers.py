"""Where the curves of a training go beside metrics.csv: Lightning's loggers, inside the run folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from vitrail.core.errors import VitrailError
from vitrail.core.extras import import_extra
from vitrail.core.files import make_folder
from vitrail.training.config import LoggerName, TrainConfig

PROJECT = "vitrail"
"""Project of W&B and experiment of MLflow that runs belong to, unless the environment names another."""

MLFLOW_URI = "MLFLOW_TRACKING_URI"
STORE = "mlruns"


def _tensorboard(folder: Path) -> Logger:
    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)


def _csv(folder: Path) -> Logger:
    return CSVLogger(folder, name="csv")


def _wandb(folder: Path) -> Logger:
    return WandbLogger(name=folder.name, save_dir=folder, project=os.environ.get("WANDB_PROJECT", PROJECT))


def _mlflow(folder: Path) -> Logger:
    where = os.environ.get(MLFLOW_URI)
    if not where:
        make_folder(folder / STORE / ".trash")  # MLflow makes them once a process
        where = _local_uri(folder)
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else MLflow wants a database
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    return MLFlowLogger(name, run_name=folder.name, tracking_uri=where)


MAKERS: dict[LoggerName, Callable[[Path], Logger]] = {
    "tensorboard": _tensorboard,
    "csv": _csv,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


PACKAGES = {"wandb": ("wandb", "wandb", "wandb"), "mlflow": ("mlflow", "mlflow-skinny", "mlflow")}
"""Logger -> module, package and extra that it needs."""


def check_loggers(config: TrainConfig) -> None:
    """
    Raises:
        MissingDependencyError: the package of a logger is not installed.
    """
    for name in config.loggers:
        if name in PACKAGES:
            import_extra(*PACKAGES[name])


def make_loggers(config: TrainConfig, folder: Path) -> list[Logger]:
    """The loggers of a configuration, whose packages are installed.

    Args:
        config: configuration of the training.
        folder: folder of the run, which they write to.
    """
    return [MAKERS[name](folder) for name in dict.fromkeys(config.loggers)]


def begin_logging(trainer: Trainer, config: TrainConfig) -> None:
    """Log the configuration, where the logger is not TensorBoard's, which shows none.

    Raises:
        VitrailError: a logger cannot begin, as without its server or its key.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            continue
        try:
            logger.log_hyperparams(config.to_dict())
        except Exception as error:  # each package and its network have errors of their own
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            title = type(logger).__name__
            raise VitrailError(f"{title} cannot begin: {reason}; mend it, or choose others with --loggers") from error


def _local_uri(folder: Path) -> str:
    return (folder.absolute() / STORE).as_uri()


def end_logging(trainer: Trainer, folder: Path) -> None:
    """Close what would else go on in the next training of this process."""
    if os.environ.get(MLFLOW_URI) == _local_uri(folder):
        del os.environ[MLFLOW_URI]  # MLflow has put it there
    if trainer.is_global_zero and any(isinstance(logger, WandbLogger) for logger in trainer.loggers):
        import_extra(*PACKAGES["wandb"]).finish()
