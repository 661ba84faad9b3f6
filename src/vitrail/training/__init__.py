"""Training of a task with Lightning: configuration, loop, checkpoints and metrics."""

from vitrail.training.config import TrainConfig
from vitrail.training.demo import demo_config

__all__ = ["TrainConfig", "demo_config"]
