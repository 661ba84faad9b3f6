"""Training: one configuration in, a run folder out. The loop, the devices and the logs are Lightning's."""

from vitrail.training.config import TrainConfig
from vitrail.training.demo import demo_config
from vitrail.training.folder import is_finished
from vitrail.training.recorder import best_row
from vitrail.training.run_data import load_run_data
from vitrail.training.train import train

__all__ = [
    "TrainConfig",
    "best_row",
    "demo_config",
    "is_finished",
    "load_run_data",
    "train",
]
