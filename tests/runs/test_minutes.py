"""Trainings that fit into a time, by a clock that steps move."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stepping_clock import SteppingClock

from vitrail.core.errors import ConfigError
from vitrail.runs.run import Run
from vitrail.runs.train import train
from vitrail.training import TrainConfig
from vitrail.training.module import TrainingModule
from vitrail.training.recorder import Row, read_checkpoint, read_metrics
from vitrail.training.time_limit import Costs, Decision

Notes = Callable[[], list[str]]


@pytest.fixture(scope="module")
def small(config: TrainConfig) -> TrainConfig:
    """Twelve steps an epoch and four of validation."""
    return replace(config, batch_size=2, epochs=100, warmup_epochs=1, minutes=2.2)


@pytest.fixture
def notes(caplog: pytest.LogCaptureFixture) -> Notes:
    """The lines that tell of the time."""
    caplog.set_level(logging.INFO, "vitrail.runs.train")
    return lambda: [line for line in caplog.messages if " min" in line[:20] or line.startswith("new estimate")]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SteppingClock:
    """An epoch takes 28 s: twelve steps of two seconds, four of validation of one."""
    return SteppingClock(monkeypatch, training_step=2, validation_step=1)


def rows_of(run: Run) -> list[Row]:
    return read_metrics(run.metrics)


def saved(run: Run) -> dict[str, Any]:
    return read_checkpoint(run.checkpoints / "last.ckpt")["callbacks"]["TimeLimit"]


@pytest.fixture(scope="module")
def whole(small: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, float, list[str]]:
    """A training that fits, what it took, and what it told."""
    told: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("vitrail.runs.train")
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    with pytest.MonkeyPatch.context() as patch:
        clock = SteppingClock(patch, training_step=2, validation_step=1)
        run = train(small, run=tmp_path_factory.mktemp("runs") / "whole", progress=False, clock=clock)
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(listener)
    return run, clock.now, told


def test_the_schedule_ends_with_the_time(small: TrainConfig, whole: tuple[Run, float, list[str]]) -> None:
    run, seconds, told = whole
    assert 0.95 * 132 <= seconds <= 132
    found = rows_of(run)
    assert [row["epoch"] for row in found] == [1, 2, 3, 4, 5]
    rates = [row["learning_rate"] for row in found]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.9 * small.learning_rate  # an epoch of warm-up
    assert rates[-1] < 0.005 * small.learning_rate
    assert [line for line in told if line.startswith("2.2 min")] == [
        "2.2 min, 54 steps of 2 s, or 4.5 epochs",
        "2.2 min: used 2 min for 54 steps",
    ]
    assert run.read().training.minutes == 2.2


def test_a_machine_that_becomes_slow_does_fewer_steps(
    small: TrainConfig, clock: SteppingClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: Notes
) -> None:
    step = TrainingModule.training_step

    def slower(module: TrainingModule, batch: Any, batch_idx: int) -> Any:
        clock.seconds = {"training_step": 4, "validation_step": 2} if clock.now > 40 else clock.seconds
        return step(module, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", slower)
    run = train(small, run=tmp_path / "run", progress=False, clock=clock)
    assert 0.9 * 132 <= clock.now <= 1.05 * 132
    rates = [row["learning_rate"] for row in rows_of(run)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.03 * small.learning_rate
    assert any(line.startswith("new estimate: ") for line in notes())


def test_the_epochs_end_the_training_where_they_are_fewer(
    small: TrainConfig, clock: SteppingClock, tmp_path: Path, notes: Notes
) -> None:
    run = train(replace(small, epochs=1), run=tmp_path / "run", progress=False, clock=clock)
    assert len(rows_of(run)) == 1
    assert clock.now == 28
    assert notes()[0] == "2.2 min, 12 steps of 2 s, or 1 epoch; --epochs 1 ends first, after about 28 s"


def test_less_than_an_epoch_is_an_epoch(small: TrainConfig, clock: SteppingClock, tmp_path: Path) -> None:
    clock.seconds = {"training_step": 10, "validation_step": 5}
    run = train(replace(small, minutes=1.5, keep="best"), run=tmp_path / "run", progress=False, clock=clock)
    assert clock.now == 6 * 10 + 4 * 5  # a seventh step would end after 87.3 s
    assert [row["epoch"] for row in rows_of(run)] == [1]
    assert run.read().status == "trained"


def test_too_little_time_for_a_validation_is_said(
    small: TrainConfig, clock: SteppingClock, tmp_path: Path, notes: Notes
) -> None:
    clock.seconds = {"training_step": 10, "validation_step": 50}
    run = train(replace(small, minutes=0.5), run=tmp_path / "run", progress=False, clock=clock)
    assert run.read().status == "trained"
    over = "3 min too many: 0 s before the first step, 3 min a validation"
    assert notes()[-1] == f"0.5 min: used 4 min for 2 steps, {over}"


def test_a_resumed_training_keeps_its_steps_and_its_time(
    small: TrainConfig,
    whole: tuple[Run, float, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SteppingClock(monkeypatch, training_step=2, validation_step=1)
    step = TrainingModule.training_step

    def interrupted(module: TrainingModule, batch: Any, batch_idx: int) -> Any:
        if module.current_epoch == 2:
            raise OSError(28, "No space left on device")
        return step(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", interrupted)
        with pytest.raises(Exception, match=r"after 2 epochs and 56 s of 2.2 min"):
            train(small, run=tmp_path / "run", progress=False, clock=clock)
    kept = saved(Run(tmp_path / "run"))
    assert (kept["decision"]["num_steps"], kept["elapsed"], kept["finished"]) == (54, 56, False)
    clock.now = 5000  # another process has another clock
    run = train(small, run=tmp_path / "run", resume=True, progress=False, clock=clock)
    assert saved(run)["finished"]
    untimed = [[{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(one)] for one in (whole[0], run)]
    assert untimed[0] == untimed[1]
    run.update(status="training")
    assert len(rows_of(train(small, run=run, resume=True, progress=False, clock=clock))) == 5  # nothing is trained


def test_what_follows_the_training_is_kept(
    small: TrainConfig, clock: SteppingClock, tmp_path: Path, notes: Notes
) -> None:
    train(small, run=tmp_path / "run", progress=False, clock=clock, follows=lambda step_seconds: 30 * step_seconds)
    assert 0.9 * 72 <= clock.now <= 72
    assert notes()[0] == "2.2 min, 60 s of them for what follows: 28 steps of 2 s, or 2.3 epochs"
    clock.now = 0
    train(replace(small, minutes=1), run=tmp_path / "no", progress=False, clock=clock, follows=lambda _: 90)
    assert clock.now <= 60 - 36  # three fifths are kept at most
    assert notes()[2].endswith("; what follows takes about 2 min, more than is left for it")


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf"), "soon"])
def test_minutes_are_a_time(minutes: Any) -> None:
    with pytest.raises(ConfigError, match="minutes"):
        TrainConfig(minutes=minutes)


def test_a_description_without_minutes_is_read(small: TrainConfig) -> None:
    values = small.to_dict()
    del values["minutes"]
    assert TrainConfig.from_dict(values).minutes is None


def test_a_last_epoch_is_worth_its_validation() -> None:
    costs = Costs(step_seconds=1, epoch_seconds=10, steps_per_epoch=100, num_epochs=9)
    assert costs.fitting_steps(330, 0, complete=True) == 300
    assert costs.fitting_steps(345, 0, complete=True) == 300  # five steps more would need a validation
    assert costs.fitting_steps(355, 0, complete=True) == 315
    assert costs.fitting_steps(60, 250, complete=False) == 300
    assert costs.fitting_steps(60, 300, complete=True) == 350
    assert costs.fitting_steps(5, 250, complete=False) == 250
    assert costs.fitting_steps(1e9, 0, complete=True) == 900
    assert costs.seconds_of(0, 315, complete=True) == 355
    assert costs.seconds_of(250, 315, complete=False) == 85


def test_the_learning_rate_goes_on_from_where_it_is() -> None:
    decision = Decision(num_steps=100, warmup_share=1.0).changed(100, 2, num_warmup_steps=10)
    assert decision.factor(5) == pytest.approx(6 / 11)
    longer = decision.changed(150, 5, num_warmup_steps=10)  # in the warm-up, which keeps its length
    assert longer.factor(5) == pytest.approx(6 / 11)
    shorter = longer.changed(100, 60, num_warmup_steps=10)
    assert shorter.factor(60) == pytest.approx(longer.factor(60), rel=0.01)
    factors = [shorter.factor(step) for step in range(60, 100)]
    assert factors == sorted(factors, reverse=True)
    assert 0 < factors[-1] < 0.01
    assert shorter.factor(100) == 0
