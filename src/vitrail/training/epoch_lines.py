"""What people see of a training: one line an epoch, a bar of the running one, and the time that is left."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from vitrail.core.progress import Bar, Seconds, time_text
from vitrail.tasks import Score
from vitrail.training.module import TrainingModule
from vitrail.training.recorder import Recorder, Row, best_row
from vitrail.training.time_limit import VALIDATION_SHARE, TimeLimit, current_step, steps_per_epoch

FIRST_WORD_SECONDS = 60
"""Silence after which a running epoch tells how long the whole takes."""

NEXT_WORD_SECONDS = 600
"""Silence after which it does so again."""

LONG_SECONDS = 600
"""Trainings that take longer get advice."""

ADVICE = "shorter: --minutes N, fewer --epochs, a smaller --image-size or a smaller --model"

RECENT = 5
"""Latest epochs whose median is an epoch's time."""


class EpochLines(Callback):
    """Tells one line an epoch, once its checkpoint is written, and a line where an epoch is long.

    The bar is shown in terminals alone. Of several processes the first one tells.

    Args:
        recorder: recorder of the training, whose rows are told.
        tell: function that shows a line.
        bar: the bar of the running epoch.
        limit: limit of time, which decides the number of epochs; None leaves it to the trainer.
        follows: function from the seconds of a training step to those of what follows the training.
        clock: seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        tell: Callable[[str], None],
        *,
        bar: Bar,
        limit: TimeLimit | None = None,
        follows: Callable[[float], float] = lambda _step_seconds: 0.0,
        clock: Seconds = time.perf_counter,
    ) -> None:
        self.recorder = recorder
        self.limit = limit
        self._tell = tell
        self._bar = bar
        self._follows = follows
        self._clock = clock
        self._durations: list[float] = []
        self._num_told = 0
        self._started = self._epoch_started = self._spoke = 0.0
        self._loss = ""

    @property
    def callbacks(self) -> list[Callback]:
        """This, the limit of time and the recorder, in the order in which they have to be called."""
        return [self, *([self.limit] if self.limit else []), self.recorder]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = self._spoke = self._clock()
        rows = self.recorder.rows
        self._num_told = len(rows)
        if rows:
            self._durations = [row["seconds"] for row in rows[-RECENT:]]
            if trainer.is_global_zero:
                done = f"continued after epoch {len(rows)} of {self._num_epochs(trainer)}"
                self._tell(f"{done}  {self._left_text(trainer, self._left(trainer))}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_epoch(trainer, pl_module)
        self._epoch_started = self._clock()
        self._loss = ""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero:
            self._show(trainer, batch_idx + 1, 0)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.is_global_zero:
            self._show(trainer, self._num_batches(trainer), batch_idx + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_epoch(trainer, pl_module, last=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._bar.hide()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._bar.hide()

    def _end_epoch(self, trainer: Trainer, module: LightningModule, *, last: bool = False) -> None:
        """Tell the epochs that are complete and not told; in callbacks that follow the recorder's."""
        rows, now = self.recorder.rows, self._clock()
        if len(rows) == self._num_told:
            return
        self._num_told = len(rows)
        self._durations = [*self._durations, now - self._epoch_started][-RECENT:]
        if trainer.is_global_zero:
            assert isinstance(module, TrainingModule)
            end = f"took {time_text(now - self._started)}" if last else self._left_text(trainer, self._left(trainer))
            self._say(f"{epoch_line(rows, module.task.scores[0], self._num_epochs(trainer))}  {end}")

    def _show(self, trainer: Trainer, num_trained: int, num_validated: int) -> None:
        """The bar, or a line after a long silence.

        Args:
            trainer: the trainer.
            num_trained, num_validated: batches of this epoch that are done.
        """
        now = self._clock()
        silent = self._spoke == self._started  # since the start; later words are for those who see no bar
        speaks = now - self._spoke >= (FIRST_WORD_SECONDS if silent else NEXT_WORD_SECONDS)
        speaks &= silent or not self._bar.visible
        if not (speaks or self._bar.visible):
            return
        left = self._left_within(trainer, num_trained, num_validated)
        title, note = f"epoch {trainer.current_epoch + 1}/{self._num_epochs(trainer)}", self._left_text(trainer, left)
        done, total = num_trained + num_validated, self._num_batches(trainer) + int(sum(trainer.num_val_batches))
        if speaks:
            advice = f"  ({ADVICE})" if left > LONG_SECONDS and silent and self.limit is None else ""
            self._say(f"{title}  batch {done} of {total}  {note}{advice}")
        self._bar.show(title, done, total, note)

    def _say(self, line: str) -> None:
        self._tell(line)
        self._spoke = self._clock()

    def _left_text(self, trainer: Trainer, left: float) -> str:
        """The time that is left of the training, and of all with what follows."""
        if self.limit:
            step_seconds = self.limit.step_seconds(trainer)
        else:
            known = self._durations or [self._clock() - self._epoch_started]
            step_seconds = statistics.median(known) / steps_per_epoch(trainer)
        follows = self._follows(step_seconds)
        return f"left {time_text(left)}" + (f", {time_text(left + follows)} with what follows" if follows else "")

    def _num_epochs(self, trainer: Trainer) -> int:
        return self.limit.num_epochs(trainer) if self.limit else int(trainer.max_epochs or 0)

    def _num_batches(self, trainer: Trainer) -> int:
        """Training batches of the running epoch."""
        return self.limit.num_batches(trainer) if self.limit else int(trainer.num_training_batches)

    def _left(self, trainer: Trainer) -> float:
        """Seconds of the epochs that follow the complete ones, with their validation and checkpoints."""
        num_done = len(self.recorder.rows)
        if self.limit:
            return self.limit.left(trainer, num_done * steps_per_epoch(trainer), complete=True)
        return statistics.median(self._durations) * (int(trainer.max_epochs or 0) - num_done)

    def _left_within(self, trainer: Trainer, num_trained: int, num_validated: int) -> float:
        """Seconds until the end of the training from within an epoch."""
        if self.limit:
            return self.limit.left(trainer, current_step(trainer, num_trained - 1), complete=False)
        done = num_trained + VALIDATION_SHARE * num_validated
        share = done / (self._num_batches(trainer) + VALIDATION_SHARE * sum(trainer.num_val_batches))
        measured = statistics.median(self._durations) if self._durations else None
        whole = (self._clock() - self._epoch_started) / share if measured is None else measured
        return whole * max(int(trainer.max_epochs or 0) - trainer.current_epoch - share, 0)


def epoch_line(rows: list[Row], score: Score, num_epochs: int) -> str:
    """The latest epoch in one line: training loss, validation score, and the best epoch until now."""
    row, best = rows[-1], best_row(rows, score)
    name = f"val_{score.name}"
    facts = (
        f"epoch {row['epoch']:>{len(str(num_epochs))}}/{num_epochs}",
        f"loss {_number(row.get('train_loss', math.nan))}",
        f"val {score.title} {_score(score, row.get(name, math.nan))}",
        f"best {_score(score, best.get(name, math.nan))} ({best['epoch']})",
    )
    return "  ".join(facts)


def _score(score: Score, value: float) -> str:
    return f"{100 * value:.1f} %" if score.percent else _number(value)


def _number(value: float) -> str:
    """At least two digits behind the point and three in all: 12.34, 1.20, 0.0123."""
    if not math.isfinite(value) or value == 0:
        return f"{value:.2f}"
    return f"{value:.{min(max(2 - math.floor(math.log10(abs(value))), 2), 6)}f}"
