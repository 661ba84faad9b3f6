"""The trials of a tune: what each tried, what came of it, and which is the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vitrail.runs.description import Description
from vitrail.tasks import Score
from vitrail.training.recorder import Row, best_row

State = Literal["complete", "pruned", "failed", "running", "waiting"]

OWN = 1
"""Number of the trial with the recipe's own values."""

PRUNED = "Pruned"
"""First word of why a pruned trial ended."""

GRID = 10
"""Steps at which trials are compared before their end: tenths of the training, since its epochs may vary."""


@dataclass(frozen=True, kw_only=True)
class TuneTrial:
    """A trial.

    Attributes:
        number: number of the trial, from 1; the first one has the recipe's own values.
        state: "complete", "pruned", "failed", "running" or "waiting".
        values: name of a setting -> value.
        score: validation score of the kept epoch; of a pruned one what it reached.
        loss: validation loss of that epoch.
        num_epochs: number of epochs that were trained.
        kept: what was kept: "best", "last", or "probe" for the linear probe before the first epoch.
        note: why it was pruned or failed; where it runs.
        folder: name of the run's folder.
        place: identity of the tune's folder on the machine that has the run.
        host: name of that machine.
        seconds: duration.
    """

    number: int
    state: State
    values: dict[str, Any]
    score: float | None = None
    loss: float | None = None
    num_epochs: int = 0
    kept: str = ""
    note: str = ""
    folder: str = ""
    place: str = ""
    host: str = ""
    seconds: float = 0.0

    @property
    def done(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in ("complete", "pruned", "failed")


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What a training reached.

    Attributes:
        score: validation score of the kept epoch; NaN where it is no number.
        facts: the same, and what else is kept of the trial, as plain values.
        stopped: why it ended before its last epoch; "" if it did not.
    """

    score: float
    facts: dict[str, Any] = field(default_factory=dict)
    stopped: str = ""

    @classmethod
    def read(cls, description: Description, score: Score) -> Reached:
        """From the description of a trained run."""
        trained = description.trained
        assert trained is not None
        kept = trained.model_extra or {}
        value, loss = kept.get(f"val_{score.name}"), kept.get("val_loss")
        facts = {"loss": loss, "num_epochs": trained.num_epochs, "kept": trained.keep}
        return cls(score=math.nan if value is None else float(value), facts=facts, stopped=trained.stopped)


def best_trial(trials: Iterable[TuneTrial], score: Score) -> TuneTrial | None:
    """The complete trial with the best score; among equals a probe, then the lowest loss, then the earliest."""

    def rank(trial: TuneTrial) -> tuple[float, bool, float, int]:
        loss = math.inf if trial.loss is None or math.isnan(trial.loss) else trial.loss
        return score.rank(trial.score or 0.0), trial.kept == "probe", -loss, -trial.number

    complete = [one for one in trials if one.state == "complete" and one.score is not None]
    return max(complete, key=rank, default=None)


def grid_steps(num_done: int, num_epochs: int) -> int:
    """Tenths of a training that are over after so many epochs."""
    return min(GRID * num_done // max(num_epochs, 1), GRID)


def best_by(rows: Sequence[Row], step: int, num_epochs: int, score: Score) -> float:
    """The best score of the epochs until a step of the grid; NaN where there is none."""
    until = rows[: max(-(-step * num_epochs // GRID), 1)]
    return best_row([*until], score).get(f"val_{score.name}", math.nan)


def busy_seconds(intervals: Sequence[tuple[float, float]], until: float) -> float:
    """Length of the union of intervals before a moment: time in which at least one trial ran."""
    total, end = 0.0, -math.inf
    for start, stop in sorted(intervals):
        stop = min(stop, until)
        total += max(stop - max(start, end), 0.0)
        end = max(end, stop)
    return total
