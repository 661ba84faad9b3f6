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

FIRST_WORD_SECONDS = 60
"""Silence after which a running epoch tells how long the whole takes."""

NEXT_WORD_SECONDS = 600
"""Silence after which it does so again."""

LONG_SECONDS = 600
"""Trainings that take longer get advice."""

ADVICE = "shorter: fewer --epochs, a smaller --image-size or a smaller --model"

VALIDATION_SHARE = 0.5
"""Time of a batch in validation over that of one in training, until it is measured: it has no backward pass."""

RECENT = 5
"""Latest epochs whose median is an epoch's time."""


class EpochLines(Callback):
    """Tells one line an epoch, once its checkpoint is written, and a line where an epoch is long.

    The bar is shown in terminals alone. Of several processes the first one tells.

    Args:
        recorder: recorder of the training, whose rows are told.
        tell: function that shows a line.
        bar: whether a bar is wanted.
        clock: seconds.
    """

    def __init__(
        self, recorder: Recorder, tell: Callable[[str], None], *, bar: bool, clock: Seconds = time.perf_counter
    ) -> None:
        self.recorder = recorder
        self._tell = tell
        self._bar = Bar(wanted=bar, clock=clock)
        self._clock = clock
        self._durations: list[float] = []
        self._num_told = 0
        self._started = self._epoch_started = self._spoke = 0.0
        self._loss = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = self._spoke = self._clock()
        rows = self.recorder.rows
        self._num_told = len(rows)
        if rows:
            self._durations = [row["seconds"] for row in rows[-RECENT:]]
            if trainer.is_global_zero:
                left = self._left_after(trainer, len(rows))
                self._tell(f"continued after epoch {len(rows)} of {trainer.max_epochs}  left {time_text(left)}")

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
            self._show(trainer, int(trainer.num_training_batches), batch_idx + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_epoch(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._bar.hide()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._bar.hide()

    def _end_epoch(self, trainer: Trainer, module: LightningModule) -> None:
        """Tell the epochs that are complete and not told; in callbacks that follow the recorder's."""
        rows, now = self.recorder.rows, self._clock()
        if len(rows) == self._num_told:
            return
        self._num_told = len(rows)
        self._durations = [*self._durations, now - self._epoch_started][-RECENT:]
        if trainer.is_global_zero:
            assert isinstance(module, TrainingModule)
            done = len(rows) == trainer.max_epochs
            end = f"took {time_text(now - self._started)}" if done else f"left {self._left_text(trainer, len(rows))}"
            self._say(epoch_line(rows, module.task.scores[0], int(trainer.max_epochs or 0)) + f"  {end}")

    def _show(self, trainer: Trainer, num_trained: int, num_validated: int) -> None:
        """The bar, or a line after a long silence.

        Args:
            trainer: the trainer.
            num_trained, num_validated: batches of this epoch that are done.
        """
        epoch, now = trainer.current_epoch, self._clock()
        total = int(trainer.num_training_batches) + int(sum(trainer.num_val_batches))
        silent = self._spoke == self._started  # since the start; later words are for those who see no bar
        speaks = now - self._spoke >= (FIRST_WORD_SECONDS if silent else NEXT_WORD_SECONDS)
        speaks &= silent or not self._bar.visible
        if not (speaks or self._bar.visible):
            return
        share = self._share(trainer, num_trained, num_validated)
        whole = self._epoch_seconds() or (now - self._epoch_started) / share
        left = whole * max(int(trainer.max_epochs or 0) - epoch - share, 0)
        title, note = f"epoch {epoch + 1}/{trainer.max_epochs}", f"left {time_text(left)}"
        if speaks:
            advice = f"  ({ADVICE})" if left > LONG_SECONDS and silent else ""
            self._say(f"{title}  batch {num_trained + num_validated} of {total}  {note}{advice}")
        self._bar.show(title, num_trained + num_validated, total, note)

    def _say(self, line: str) -> None:
        """Tell a line where the bar was; a line beside it would tear it."""
        self._bar.hide()
        self._tell(line)
        self._spoke = self._clock()

    def _left_text(self, trainer: Trainer, num_done: int) -> str:
        return time_text(self._left_after(trainer, num_done))

    def _left_after(self, trainer: Trainer, num_done: int) -> float:
        """Seconds of the epochs that follow, with their validation and checkpoints."""
        return self._epoch_seconds() * (int(trainer.max_epochs or 0) - num_done)

    def _epoch_seconds(self) -> float:
        """Seconds of an epoch as measured; 0 before the first one is complete."""
        return statistics.median(self._durations) if self._durations else 0.0

    def _share(self, trainer: Trainer, num_trained: int, num_validated: int) -> float:
        """Share of the epoch's work that is done; above 0."""
        done = num_trained + VALIDATION_SHARE * num_validated
        return done / (trainer.num_training_batches + VALIDATION_SHARE * sum(trainer.num_val_batches))


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
