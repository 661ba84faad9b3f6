"""Metrics and checkpoints of the epochs, written atomically."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from vitrail.core.errors import VitrailError
from vitrail.core.faults import find_fault
from vitrail.core.files import atomic_path, check_regular, read_text, write_text
from vitrail.tasks import Score
from vitrail.training.module import TrainingModule
from vitrail.training.time_limit import TimeLimit

Row = dict[str, float]
"""Metrics of one epoch."""

Judge = Callable[[Sequence[Row], int], str]
"""Function from the epochs that are done, and the number of all, to why training ends here; "" goes on."""

LARGEST = 1e300
"""Larger numbers in a file are refused: charts compute with them."""


@dataclass(frozen=True, kw_only=True)
class TrainingFiles:
    """Files that training writes.

    Attributes:
        metrics: CSV file, one row per epoch.
        checkpoints: folder of the training state.
        logs: folder of TensorBoard's files.
    """

    metrics: Path
    checkpoints: Path
    logs: Path

    @property
    def last(self) -> Path:
        """The state at the end of the latest complete epoch."""
        return self.checkpoints / "last.ckpt"

    @property
    def probe(self) -> Path:
        """The weights before the first epoch, with the linear probe as classifier."""
        return self.checkpoints / "probe.safetensors"

    @property
    def best(self) -> Path:
        """The state at the end of the best epoch."""
        return self.checkpoints / "best.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written and renamed in their own folder.

    Lightning writes to the system's temporary folder first; a move from there to another disk is not atomic.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with atomic_path(path) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # PyTorch's zip writer hides the error of the disk
                raise VitrailError(
                    f"cannot write {path}: the disk is full, or its limit on file sizes is reached; "
                    f"free space and continue with --resume"
                ) from error


class Recorder(Checkpoint):
    """Writes metrics.csv and the checkpoints at the end of every epoch.

    Lightning's ModelCheckpoint and CSVLogger are not used: the former loses the best score when the folder is moved,
    the latter appends the epochs that a killed run repeats. The rows are part of the checkpoint, so that the file
    always matches the state that training resumes from. The same rows decide whether it is time to stop, so that all
    processes and a resumed run decide alike.

    Args:
        files: what is written.
        score: what decides which epoch is the best.
        patience: epochs without a better one after which training stops; 0 never stops it.
        judge: what looks at every epoch, once it is saved, and may end the training.

    Attributes:
        stopped: why the judge ended the training; "" if it did not.
    """

    def __init__(
        self, files: TrainingFiles, score: Score, patience: int = 0, judge: Judge = lambda _rows, _num_epochs: ""
    ) -> None:
        self.files = files
        self.score = score
        self.patience = patience
        self.judge = judge
        self.stopped = ""
        self.rows: list[Row] = []
        self.started = 0.0
        self.learning_rate = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # At the end of the epoch the schedule has already made the next step.
        self.learning_rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        head = {"epoch": trainer.current_epoch + 1, "learning_rate": self.learning_rate}
        self.rows.append(head | pl_module.scores | {"seconds": round(time.perf_counter() - self.started, 3)})
        # The best goes first: after a kill in between, the repeated epoch writes the same file again.
        if best_row(self.rows, self.score) is self.rows[-1]:
            trainer.save_checkpoint(self.files.best, weights_only=False)
        trainer.save_checkpoint(self.files.last, weights_only=False)
        if trainer.is_global_zero:
            write_metrics(self.files.metrics, self.rows)
            for logger in trainer.loggers:
                logger.log_metrics({k: v for k, v in self.rows[-1].items() if k != "epoch"}, step=trainer.global_step)
        if is_patience_over(self.rows, self.score, self.patience):
            trainer.should_stop = True
        limit = next((one for one in trainer.callbacks if isinstance(one, TimeLimit)), None)  # type: ignore[attr-defined]  # it is set later
        self.stopped = self.judge(
            self.rows, int(trainer.max_epochs or 1) if limit is None else limit.num_epochs(trainer)
        )
        if self.stopped:
            trainer.should_stop = True


def best_row(rows: list[Row], score: Score) -> Row:
    """The epoch with the best validation score; among equals the lowest validation loss, then the latest.

    A score or a loss that is no number is the worst.
    """
    return max(reversed(rows), key=partial(_rank, score=score))


def is_patience_over(rows: list[Row], score: Score, patience: int) -> bool:
    """Whether none of the last ``patience`` epochs is better than all before; a patience of 0 has no end."""
    if not patience or len(rows) <= patience:
        return False
    ranks = [_rank(row, score) for row in rows]
    return max(ranks[-patience:]) <= max(ranks[:-patience])


def stop_told(rows: list[Row], score: Score, patience: int, num_epochs: int) -> str:
    """Why training stopped before its last epoch; empty if it did not."""
    if len(rows) >= num_epochs or not is_patience_over(rows, score, patience):
        return ""
    best = best_row(rows[:-patience], score)
    return (
        f"Stopped after epoch {len(rows)} of {num_epochs}: none of the last {patience} epochs has a better "
        f"{score.title} than epoch {best['epoch']} (patience {patience})"
    )


def _rank(row: Row, score: Score) -> list[tuple[bool, float]]:
    worths = (score.rank(row.get(f"val_{score.name}", math.nan)), -row.get("val_loss", math.nan))
    return [(False, 0.0) if math.isnan(worth) else (True, worth) for worth in worths]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents, on the CPU.

    Raises:
        VitrailError: the file is unreadable.
    """
    try:
        check_regular(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises many kinds for files that are no checkpoints
        if find_fault(error) is not None:
            raise
        raise VitrailError(f"cannot read {path}: {_first_line(error)}; start again with --overwrite") from error


def recorded_rows(checkpoint: dict[str, Any]) -> list[Row]:
    """The rows that :class:`Recorder` saved in a checkpoint."""
    return list(checkpoint["callbacks"][Recorder.__qualname__]["rows"])


def task_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """A task's state in a checkpoint: the averaged weights if averaging is on."""
    prefix = "task."
    state = checkpoint["state_dict"]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def write_metrics(path: Path, rows: list[Row]) -> None:
    """Write all rows as CSV; a score that rows of an earlier version lack has empty cells there."""
    text = io.StringIO()
    columns = max(rows, key=len)  # the latest of the longest would be the same
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_metrics(path: Path) -> list[Row]:
    """Read the rows that :func:`write_metrics` wrote; the epoch is an integer, and empty cells are left out.

    Raises:
        VitrailError: the file is not such a table; the message names the line.
    """
    remedy = "restore the file, or delete it; the report has no curves then"
    try:
        table = csv.DictReader(io.StringIO(read_text(path), newline=""))
        rows = []
        for cells in table:
            try:
                rows.append(_row_of(cells))
            except (TypeError, ValueError, KeyError) as error:
                raise VitrailError(f"{path}, line {table.line_num}, is no row of metrics: {error}; {remedy}") from error
        return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VitrailError(f"{path} cannot be read: {error}; {remedy}") from error


def _row_of(cells: Mapping[str, str]) -> Row:
    """
    Raises:
        TypeError, ValueError, KeyError: a cell is no number, or there is no epoch.
    """
    row = {name: float(text) for name, text in cells.items() if text not in (None, "")}
    if wrong := [f"{name} is {value}" for name, value in row.items() if abs(value) > LARGEST]:
        raise ValueError(wrong[0])
    if row.get("epoch", 0) < 1:
        raise ValueError("epoch is below 1, or missing")
    return row | {"epoch": int(row["epoch"])}


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
