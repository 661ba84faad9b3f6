"""What a training tells while it runs, by a clock that steps and not time move."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stepping_clock import SteppingClock

from vitrail.runs.train import train
from vitrail.tasks import Score
from vitrail.training import TrainConfig
from vitrail.training.epoch_lines import ADVICE, epoch_line
from vitrail.training.module import TrainingModule

Lines = list[str]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], Lines]:
    """The lines after the opening, with numbers of three kinds replaced."""
    caplog.set_level(logging.INFO, "vitrail.runs.train")

    def lines() -> Lines:
        found = [line for line in caplog.messages if "epoch" in line and not line.startswith("Task")]
        found = [re.sub(r"\d+\.\d %", "P %", re.sub(r"loss \d+\.\d{2,}\b", "loss L", line)) for line in found]
        return [re.sub(r"P % \(\d\)", "P % (E)", line) for line in found]

    return lines


def test_one_line_an_epoch_and_the_time_of_the_whole(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], Lines]
) -> None:
    clock = SteppingClock(monkeypatch, training_step=8, validation_step=6)  # three steps and a validation: 30 s
    run = train(config, run=tmp_path / "run", progress=True, clock=clock)
    assert told() == [
        "epoch 1/3  loss L  val top-1 P %  best P % (E)  left 60 s",
        "epoch 2/3  loss L  val top-1 P %  best P % (E)  left 30 s",
        "epoch 3/3  loss L  val top-1 P %  best P % (E)  took 2 min",
    ]
    monkeypatch.undo()
    silent = train(config, run=tmp_path / "silent", progress=False)
    left, right = load_file(run.weights), load_file(silent.weights)
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_long_first_epoch_says_how_long_the_whole_takes(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], Lines]
) -> None:
    clock = SteppingClock(monkeypatch, training_step=300, validation_step=150)
    train(replace(config, epochs=2), run=tmp_path / "run", progress=False, clock=clock)
    # Half of a step is the guess for validation, and right here: an epoch takes 1,050 s.
    assert told() == [
        f"epoch 1/2  batch 1 of 4  left 30 min  ({ADVICE})",
        "epoch 1/2  batch 3 of 4  left 20 min",
        "epoch 1/2  loss L  val top-1 P %  best P % (E)  left 18 min",
        "epoch 2/2  batch 2 of 4  left 8 min",
        "epoch 2/2  loss L  val top-1 P %  best P % (E)  took 35 min",
    ]


def test_a_resumed_training_goes_on_counting(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], Lines]
) -> None:
    clock = SteppingClock(monkeypatch, training_step=8, validation_step=6)
    step = TrainingModule.training_step

    def interrupted(module: TrainingModule, batch: Any, batch_idx: int) -> Any:
        if module.current_epoch == 2:
            raise OSError(28, "No space left on device")
        return step(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", interrupted)
        with pytest.raises(Exception, match="after 2 of 3 epochs"):
            train(config, run=tmp_path / "run", progress=False, clock=clock)
    assert len(told()) == 2
    train(config, run=tmp_path / "run", resume=True, progress=False, clock=clock)
    assert re.fullmatch(r"continued after epoch 2 of 3  left \d+ s", told()[2])
    assert told()[3:] == ["epoch 3/3  loss L  val top-1 P %  best P % (E)  took 30 s"]


def test_lines_are_printed_for_a_person_who_does_not_log(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    train(replace(config, epochs=1), run=tmp_path / "run", progress=True)
    shown = capsys.readouterr().err
    assert "epoch 1/1  loss" in shown
    assert "\x1b[2K" in shown  # the bar was there, and is gone


@pytest.mark.parametrize(
    ("score", "rows", "line"),
    [
        (
            Score(name="srcc", title="SRCC", percent=False),
            [{"epoch": 1, "train_loss": 0.01234, "val_srcc": 0.512}],
            "epoch  1/10  loss 0.0123  val SRCC 0.512  best 0.512 (1)",
        ),
        (
            Score(name="frechet", title="Fréchet distance", percent=False, higher_is_better=False),
            [{"epoch": 1, "train_loss": 12.3, "val_frechet": 31.0}, {"epoch": 2, "train_loss": 1, "val_frechet": 40.5}],
            "epoch  2/10  loss 1.00  val Fréchet distance 40.50  best 31.00 (1)",
        ),
        (
            Score(name="map", title="mAP"),
            [{"epoch": 1, "train_loss": 0.0, "val_map": float("nan")}],
            "epoch  1/10  loss 0.00  val mAP nan %  best nan % (1)",
        ),
    ],
)
def test_each_score_has_its_own_form(score: Score, rows: list[dict[str, float]], line: str) -> None:
    assert epoch_line(rows, score, 10) == line
