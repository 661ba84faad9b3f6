"""Training: a task and data in, checkpoints and metrics out. The loop, the devices and the logs are Lightning's."""

from vitrail.training.config import TrainConfig
from vitrail.training.demo import demo_config

__all__ = ["TrainConfig", "demo_config"]
