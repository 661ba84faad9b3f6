"""Training of a task with Lightning: configuration, loop, checkpoints and metrics."""

from vitrail.training.config import ResolvedConfig, TrainConfig
from vitrail.training.demo import demo_config

__all__ = ["ResolvedConfig", "TrainConfig", "demo_config"]
