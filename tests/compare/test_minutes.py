"""A comparison that fits into a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vitrail.compare import execute, job_list, read_plan, run_cell, timed_plan
from vitrail.core.errors import ConfigError
from vitrail.training import TrainConfig


@pytest.mark.parametrize(("shard", "each"), [("1/1", 3), ("1/2", 6), ("2/2", 6), ("2/3", 6), ("9/9", 12)])
def test_every_training_has_the_same_time(plan_file: Path, shard: str, each: float) -> None:
    """Two cells and two seeds; machines whose shares are smaller give no more time to each."""
    plan = timed_plan(read_plan(plan_file), 12, shard)
    assert {plan.config(*job).minutes for job in job_list(plan)} == {each}


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_are_a_time(plan_file: Path, minutes: float) -> None:
    with pytest.raises(ConfigError, match="minutes"):
        timed_plan(read_plan(plan_file), minutes)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "half", "1/0"])
def test_a_shard_is_checked_first(plan_file: Path, shard: str) -> None:
    with pytest.raises(ConfigError, match="shard"):
        timed_plan(read_plan(plan_file), 10, shard)


class Trained(Exception):  # noqa: N818 (no error)
    """What a training was called with."""


def test_a_run_keeps_the_time_that_it_was_started_with(
    plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(config: TrainConfig, *, follows: Callable[[float], float], **_: Any) -> None:
        raise Trained(config.minutes, follows)

    monkeypatch.setattr(execute, "train", train)
    plan = read_plan(plan_file)
    job = job_list(plan)[0]
    with pytest.raises(Trained) as timed:
        run_cell(timed_plan(plan, 12), tmp_path, job)
    minutes, follows = timed.value.args
    assert minutes == 3
    run = execute.cell_run(tmp_path, *job)
    config = replace(plan.config(*job), minutes=5.0)
    run.update(
        model={"name": "x", "fields": {}}, task="classification", training=config.to_dict(), data={"num_train": 12}
    )
    assert 5 < follows(0.1) < follows(1.0)  # tests, and a share of the measurement
    with pytest.raises(Trained) as resumed:
        run_cell(plan, tmp_path, job)
    assert resumed.value.args[0] == 5
