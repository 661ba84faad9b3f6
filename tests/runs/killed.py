"""Train, and kill this process with SIGKILL at a chosen moment; started by test_killed.py, not collected.

Usage: killed.py <config.json> <folder of the runs> <moment> ...

The moments share one process for the imports; each is trained, and killed, in a fork of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vitrail.models import edgevit
from vitrail.runs.train import train
from vitrail.training import TrainConfig, recorder
from vitrail.training.module import TrainingModule

Hook = Callable[..., Any]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_the_middle_of_an_epoch() -> None:
    step = TrainingModule.training_step

    def hooked(module: TrainingModule, batch: Any, batch_idx: int) -> Any:
        if (module.current_epoch, batch_idx) == (1, 1):
            die()
        return step(module, batch, batch_idx)

    TrainingModule.training_step = hooked  # type: ignore[method-assign]


def while_a_checkpoint_is_written() -> None:
    save, calls = torch.save, 0

    def hooked(value: Any, path: Any) -> None:
        nonlocal calls
        calls += path.name.startswith(".last")
        if calls == 2:
            Path(path).write_bytes(b"PK\3\4 half of a checkpoint")
            die()
        save(value, path)

    torch.save = hooked


def between_the_best_and_the_last_checkpoint() -> None:
    save, calls = recorder.AtomicCheckpointIO.save_checkpoint, 0

    def hooked(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        nonlocal calls
        calls += Path(path).name == "last.ckpt"
        if calls == 2:
            die()
        save(self, checkpoint, path, storage_options)

    recorder.AtomicCheckpointIO.save_checkpoint = hooked  # type: ignore[method-assign]


def _before_metrics_are_written(epoch: int) -> Hook:
    def arrange() -> None:
        write = recorder.write_metrics

        def hooked(run: Any, rows: Any) -> None:
            if len(rows) == epoch:
                die()
            write(run, rows)

        recorder.write_metrics = hooked

    return arrange


MOMENTS: dict[str, Hook] = {
    "middle": in_the_middle_of_an_epoch,
    "writing": while_a_checkpoint_is_written,
    "between": between_the_best_and_the_last_checkpoint,
    "metrics": _before_metrics_are_written(2),
    "end": _before_metrics_are_written(3),
}


def main() -> None:
    values, folder, *moments = sys.argv[1:]
    torch.set_num_threads(1)
    values = json.loads(Path(values).read_text())
    edgevit.VARIANTS["edgevit_test"] = edgevit.EdgeViTConfig(**values["variant"])  # type: ignore[index]
    for moment in moments:
        child = os.fork()
        if child == 0:
            MOMENTS[moment]()
            train(TrainConfig.from_dict(values["config"]), run=Path(folder) / moment, progress=False)
            os._exit(0)  # it should be dead by now
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{moment} {os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    main()
