"""Training: a task, a configuration and data in; checkpoints and metrics out. Loop, devices and logs are Lightning's."""

from vitrail.training.config import TrainConfig
from vitrail.training.demo import demo_config

__all__ = ["TrainConfig", "demo_config"]
