"""Trainings that only write what a tune reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vitrail.core.errors import VitrailError
from vitrail.runs.run import Run
from vitrail.training import TrainConfig
from vitrail.training.recorder import Row

Scored = Callable[[TrainConfig], float]


class Pretended:
    """Trainings that only write what a tune reads.

    Attributes:
        score: function from a configuration to the validation score; it may raise.
        rows: epochs that are told to the judge, as shares of the score.
        trained: configuration and folder of every training that was begun.
    """

    def __init__(self) -> None:
        self.score: Scored = lambda _: 0.5
        self.rows = (1.0,)
        self.trained: list[tuple[TrainConfig, str]] = []

    def __call__(self, config: TrainConfig, *, run: Run, judge: Callable[..., str], **_: Any) -> None:
        self.trained.append((config, run.folder.name))
        described = {"model": {"name": config.model, "fields": {}}, "task": config.task, "classes": ["a", "b"]}
        settings = {name: value for name, value in config.to_dict().items() if value is not None}
        run.update(**described, training=settings, status="training", versions={"vitrail": "0"})
        value = self.score(config)
        rows: list[Row] = []
        stopped = ""
        for share in self.rows:
            rows.append({"epoch": len(rows) + 1, "val_top1": share * value})
            if stopped := judge(rows, len(self.rows)):
                break
        kept = {"keep": "best", "epoch": len(rows), "num_epochs": len(rows), "val_loss": 1.0, "stopped": stopped}
        run.update(status="trained", trained=kept | {"val_top1": rows[-1]["val_top1"]})
        run.weights.write_bytes(b"weights")


def refusing(when: Callable[[TrainConfig], bool], value: float = 0.5) -> Scored:
    """Scores of trainings that fail now and then."""

    def score(config: TrainConfig) -> float:
        if when(config):
            raise VitrailError("the loss became nan")
        return value

    return score
