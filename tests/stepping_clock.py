"""A clock that training steps and validation steps move: tests of time neither sleep nor depend on the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vitrail.training.module import TrainingModule


class SteppingClock:
    """Seconds since the start.

    Attributes:
        now: the time.
        seconds: name of a step -> what it takes; tests change it on the way.
    """

    def __init__(self, patch: pytest.MonkeyPatch, *, training_step: float, validation_step: float) -> None:
        self.now = 0.0
        self.seconds = {"training_step": training_step, "validation_step": validation_step}
        for name in self.seconds:
            patch.setattr(TrainingModule, name, self._moved(name, getattr(TrainingModule, name)))

    def __call__(self) -> float:
        return self.now

    def _moved(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def moved(module: TrainingModule, batch: Any, batch_idx: int) -> Any:
            self.now += self.seconds[name]
            return step(module, batch, batch_idx)

        return moved
