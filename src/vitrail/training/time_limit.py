"""A training that fits into a given time: the number of its steps, and the learning rate over them.

The first steps are measured, and the number of steps follows from them; then it is estimated again and again. The
learning rate falls along half a cosine, as in any training, and reaches its end with the last step. After a new
estimate it goes on from where it is. Processes that train together take the estimates of the first one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from vitrail.core.progress import Seconds, time_text
from vitrail.training.optimizer import learning_rate_factor

AIM = 0.97
"""Share of the time that is planned; the rest is for the last estimate's error, and for the files at the end."""

KEEP_WITHIN = 0.03
"""A new estimate that differs by less, relatively, changes nothing."""

TELL_BEYOND = 0.25
"""A new estimate that differs by more, relatively, from what was told is told."""

FIRST_ESTIMATE = 2
"""Steps before the first estimate; the first step of an epoch is not measured, since workers start in it."""

RELIABLE = 8
"""Measured batches that an estimate is told after."""

SMALLEST_EPOCH = 0.1
"""Share of an epoch below which a last, incomplete one is left out: its validation takes more than it brings."""

LONGEST_WARM_UP = 0.25
"""Share of all steps."""

VALIDATION_SHARE = 0.5
"""Time of a batch in validation over that of one in training, until it is measured: it has no backward pass."""

OVER = 0.05
"""Share of the time that a training may be longer without a word."""

LARGEST_RESERVE = 0.6
"""Share of the time that is kept for what follows the training, at most."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How many steps a training takes, and where its schedule is.

    Attributes:
        num_steps: number of steps of the whole training.
        since_step: step at which this was decided.
        since_share: share of the schedule that was over at that step.
        warmup_share: share of the schedule that is warm-up.
    """

    num_steps: int
    since_step: int = 0
    since_share: float = 0.0
    warmup_share: float = 0.0

    def share(self, step: int) -> float:
        """The share of the schedule that is over before a step: 0 at the first step, 1 after the last."""
        if step >= self.num_steps:
            return 1.0
        passed = (step - self.since_step) / (self.num_steps - self.since_step)
        return self.since_share + passed * (1 - self.since_share)

    def factor(self, step: int) -> float:
        """The factor of the learning rate at a step: warm-up, then half a cosine."""
        return learning_rate_factor(
            self.share(step) * self.num_steps,
            num_steps=self.num_steps,
            num_warmup_steps=round(self.warmup_share * self.num_steps),
        )

    def changed(self, num_steps: int, step: int, num_warmup_steps: float) -> Decision:
        """The decision for another number of steps, from a step on.

        The warm-up has its length in steps until it is over; then the learning rate goes on from where it is.
        """
        share, warmup = self.share(step), self.warmup_share
        if share < warmup:
            share, warmup = step / num_steps, min(num_warmup_steps / num_steps, LONGEST_WARM_UP)
        return Decision(num_steps=num_steps, since_step=step, since_share=share, warmup_share=warmup)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a training costs.

    Attributes:
        step_seconds: seconds of a step.
        epoch_seconds: seconds of an epoch beside its steps: validation, checkpoints, start of workers.
        steps_per_epoch: steps of a whole epoch.
        num_epochs: largest number of epochs.
    """

    step_seconds: float
    epoch_seconds: float
    steps_per_epoch: int
    num_epochs: int

    def fitting_steps(self, seconds: float, step: int, *, complete: bool) -> int:
        """The number of steps of the whole training, if so much time is left after ``step`` steps.

        Args:
            seconds: time that is left.
            step: number of steps that are done.
            complete: whether the epoch of the latest step is complete, with its validation.
        """
        epochs_done = step // self.steps_per_epoch if complete else (step - 1) // self.steps_per_epoch
        best = step
        for count in range(1, self.num_epochs - epochs_done + 1):
            possible = step + int((seconds - count * self.epoch_seconds) / max(self.step_seconds, 1e-9))
            reached = min(possible, (epochs_done + count) * self.steps_per_epoch)
            first = count == 1 and not complete  # its validation has to be anyway
            if reached - best < (0 if first else SMALLEST_EPOCH * self.steps_per_epoch):
                break
            best = max(best, reached)
        return best

    def seconds_of(self, step: int, num_steps: int, *, complete: bool) -> float:
        """Seconds from a step to the end of the last one, with every validation."""
        done = step // self.steps_per_epoch if complete else (step - 1) // self.steps_per_epoch
        epochs = -(-num_steps // self.steps_per_epoch) - done
        return (num_steps - step) * self.step_seconds + max(epochs, 0) * self.epoch_seconds


class TimeLimit(Callback):
    """Ends a training after a given time, with its schedule at the end.

    The time counts from the making of this object, so that the check of the data is part of it. What a resumed training
    has used before its checkpoint counts too, and its number of steps stays as it was unless it does not fit any more.
    The last epoch may be incomplete; it is validated and recorded as any other.

    Args:
        minutes: the time.
        tell: function that shows a line.
        clock: seconds.
        follows: function from the seconds of a training step to those that are kept for what follows it.
    """

    def __init__(
        self,
        minutes: float,
        *,
        tell: Callable[[str], None],
        clock: Seconds = time.perf_counter,
        follows: Callable[[float], float] = lambda _step_seconds: 0.0,
    ) -> None:
        self.minutes = minutes
        self.decision: Decision | None = None
        self.finished = False
        self.warmup_epochs = 0.0  # until the data are read
        self._tell = tell
        self._clock = clock
        self._follows = follows
        self._started = clock()
        self._used = 0.0
        self._durations: list[float] = []
        self._known_seconds: float | None = None
        self._epoch_seconds: float | None = None
        self._start_seconds = self._first_batch_seconds = self._file_seconds = 0.0
        self._batch_ended = self._epoch_ended = 0.0
        self._next = FIRST_ESTIMATE
        self._told = 0

    @property
    def elapsed(self) -> float:
        """Seconds that are used, in earlier processes too."""
        return self._used + self._clock() - self._started

    def state_dict(self) -> dict[str, Any]:
        return {
            "decision": asdict(self.decision) if self.decision else None,
            "finished": self.finished,
            "elapsed": self.elapsed,
            "batch_seconds": self._batch_seconds(),
            "epoch_seconds": self._epoch_seconds,
            "told": self._told,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.decision = Decision(**state_dict["decision"]) if state_dict["decision"] else None
        self.finished = state_dict["finished"]
        self._used = state_dict["elapsed"]
        self._known_seconds = state_dict["batch_seconds"]
        self._epoch_seconds = state_dict["epoch_seconds"]
        self._told = state_dict["told"]

    def num_epochs(self, trainer: Trainer) -> int:
        """The number of epochs, the last of which may be incomplete."""
        most = int(trainer.max_epochs or 1)
        return most if self.decision is None else -(-self.decision.num_steps // steps_per_epoch(trainer))

    def num_batches(self, trainer: Trainer) -> int:
        """The number of batches of the running epoch."""
        whole = int(trainer.num_training_batches)
        if self.decision is None:
            return whole
        rest = self.decision.num_steps - trainer.current_epoch * steps_per_epoch(trainer)
        return max(min(whole, rest * trainer.accumulate_grad_batches), 1)

    def step_seconds(self, trainer: Trainer) -> float:
        """Seconds of a step, as far as it is known."""
        return self._costs(trainer).step_seconds

    def left(self, trainer: Trainer, step: int, *, complete: bool) -> float:
        """Seconds that the training will take from a step on, as :meth:`Costs.seconds_of` counts them."""
        costs = self._costs(trainer)
        num_steps = self.decision.num_steps if self.decision else costs.num_epochs * costs.steps_per_epoch
        return costs.seconds_of(step, num_steps, complete=complete)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_seconds = self._clock() - self._started

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batch_ended = self._clock()
        self._file_seconds = self._batch_ended - self._epoch_ended if self._epoch_ended else 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = self._clock()
        seconds, self._batch_ended = now - self._batch_ended, now
        if batch_idx > 0 or trainer.num_training_batches == 1:
            self._durations.append(seconds)
        if batch_idx == 0:
            self._first_batch_seconds = seconds
        if (batch_idx + 1) % trainer.accumulate_grad_batches and batch_idx + 1 < trainer.num_training_batches:
            return  # in the middle of a step
        step = current_step(trainer, batch_idx)
        if step >= self._next:
            self._decide(trainer, step, complete=False)
        if self.decision is not None and step >= self.decision.num_steps:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_ended = self._clock()
        start = max(self._first_batch_seconds - self._batch_seconds(), 0.0)
        self._epoch_seconds = self._epoch_ended - self._batch_ended + start
        if not trainer.should_stop:
            step = (trainer.current_epoch + 1) * steps_per_epoch(trainer)
            self._decide(trainer, step, complete=True)
            assert self.decision is not None
            trainer.should_stop = self.decision.num_steps <= step
        self.finished = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.decision is not None:
            over = self.elapsed - 60 * self.minutes
            told = f"{self.minutes:g} min: used {time_text(self.elapsed)} for {self.decision.num_steps:,} steps"
            if over > OVER * 60 * self.minutes and self._epoch_seconds is not None:
                told += f", {time_text(over)} too many: {time_text(self._start_seconds)} before the first step, "
                told += f"{time_text(self._epoch_seconds)} a validation"
            self._tell(told)

    def _decide(self, trainer: Trainer, step: int, *, complete: bool) -> None:
        """Estimate the number of steps anew; the first process does, for all."""
        estimate = self._estimate(trainer, step, complete=complete) if trainer.is_global_zero else None
        self.decision = trainer.strategy.broadcast(estimate)
        assert self.decision is not None
        num_steps = self.decision.num_steps
        self._next = step + max(min(step, num_steps // 20, (num_steps - step) // 2), 1)

    def _estimate(self, trainer: Trainer, step: int, *, complete: bool) -> Decision:
        costs = self._costs(trainer)
        follows = self._follows(costs.step_seconds)
        kept = min(follows, LARGEST_RESERVE * 60 * self.minutes)
        left = AIM * 60 * self.minutes - kept - self.elapsed
        num_steps = costs.fitting_steps(left, step, complete=complete)
        found = self.decision or Decision(num_steps=num_steps, warmup_share=1.0)
        if self.decision is None or abs(num_steps - found.num_steps) > KEEP_WITHIN * found.num_steps:
            found = found.changed(num_steps, step, self.warmup_epochs * costs.steps_per_epoch)
        known = len(self._durations) >= RELIABLE or step * 5 > num_steps
        if known and abs(found.num_steps - self._told) > TELL_BEYOND * self._told:
            left = costs.seconds_of(step, found.num_steps, complete=complete)
            self._tell(self._told_of(costs, found.num_steps, follows, kept, left))
            self._told = found.num_steps
        return found

    def _told_of(self, costs: Costs, num_steps: int, follows: float, kept: float, left: float) -> str:
        """What a new estimate says."""
        start = "new estimate: " if self._told else f"{self.minutes:g} min, "
        if kept and not self._told:
            start += f"{time_text(kept)} of them for what follows: "
        epochs = num_steps / costs.steps_per_epoch
        told = f"{start}{num_steps:,} steps of {costs.step_seconds:.2g} s, or {epochs:.2g} epoch{'s' * (epochs != 1)}"
        if num_steps == costs.num_epochs * costs.steps_per_epoch:
            told += f"; --epochs {costs.num_epochs} ends first, after about {time_text(self.elapsed + left)}"
        if kept < follows:
            told += f"; what follows takes about {time_text(follows)}, more than is left for it"
        return told

    def _batch_seconds(self) -> float:
        """Seconds of a batch: the mean of the latest ones."""
        if self._known_seconds is not None and len(self._durations) < RELIABLE:
            return self._known_seconds
        recent = self._durations[-max(len(self._durations) // 8, 10) :]
        return sum(recent) / max(len(recent), 1)

    def _costs(self, trainer: Trainer) -> Costs:
        batch_seconds = self._batch_seconds()
        guess = VALIDATION_SHARE * batch_seconds * sum(trainer.num_val_batches)
        measured = guess if self._epoch_seconds is None else self._epoch_seconds
        return Costs(
            step_seconds=batch_seconds * trainer.accumulate_grad_batches,
            epoch_seconds=measured + self._file_seconds,
            steps_per_epoch=steps_per_epoch(trainer),
            num_epochs=int(trainer.max_epochs or 1),
        )


def steps_per_epoch(trainer: Trainer) -> int:
    """The steps of a whole epoch."""
    return -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)


def current_step(trainer: Trainer, batch_idx: int) -> int:
    """The number of steps that are done after a batch of the running epoch."""
    return trainer.current_epoch * steps_per_epoch(trainer) + -(-(batch_idx + 1) // trainer.accumulate_grad_batches)


def time_is_over(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint is the end of a training with a limit of time."""
    return bool(checkpoint["callbacks"].get(TimeLimit.__qualname__, {}).get("finished"))
