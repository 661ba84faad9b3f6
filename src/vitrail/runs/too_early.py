"""Whether a training ended so early that its scores say little; the rule is the same for every task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vitrail.runs.run import Run
from vitrail.training.recorder import read_metrics

ENOUGH_STEPS = 2000
"""Steps after which a training is not called early, however few epochs they are."""

FEW = 0.5
"""Share of the usual epochs below which a training may be called early."""

STEEP = 0.02
"""Fall of the loss in the last epoch, as a share of the loss before it, from which it still falls steeply."""

FROM_WEIGHTS = 0.2
"""Share of the usual epochs that is usual when training starts from weights."""


def too_early(run: Run) -> str | None:
    """A sentence, if the training of a run ended early; None if it did not, or if that is not known.

    A training is called early if all of this holds: fewer than :data:`FEW` of the epochs that are usual for its task
    (:attr:`~vitrail.tasks.Task.usual_epochs`, :data:`FROM_WEIGHTS` of them from weights), fewer than
    :data:`ENOUGH_STEPS` steps, and a loss (of the validation images, else of the training images) that fell by more
    than :data:`STEEP` in the last epoch, or only one epoch. Where two models are trained against each other the losses
    say nothing, and are not asked. A linear probe that was kept is never early.
    """
    description = run.read()
    if description.trained is not None and description.trained.keep == "probe":
        return None  # it needs no epochs, and none was better
    if description.status != "trained" or not run.metrics.exists() or not (rows := read_metrics(run.metrics)):
        return None
    config, task, epochs = description.training, description.kind.task, len(rows)
    usual = max(round(task.usual_epochs * (FROM_WEIGHTS if config.weights else 1)), 1)
    steps = epochs * math.ceil(description.data.num_train / config.batch_size)
    if epochs >= FEW * usual or steps >= ENOUGH_STEPS:
        return None
    said = f"Too early: {epochs} epoch{'s' * (epochs != 1)} of training, where {usual} are usual for {task.name}"
    if task.adversarial or epochs == 1:
        return f"{said}."
    if (fall := last_fall(rows)) is None or fall <= STEEP:
        return None
    return f"{said}; the loss still fell by {100 * fall:.0f} % in the last one."


def last_fall(rows: Sequence[Mapping[str, float]]) -> float | None:
    """The fall of the loss in the last epoch, as a share of the loss before it; None where it is not known."""
    before, after = rows[-2:]
    for name in ("val_loss", "train_loss"):
        first, last = before.get(name, math.nan), after.get(name, math.nan)
        if math.isfinite(first) and math.isfinite(last) and first > 0:
            return (first - last) / first
    return None
