"""kill -9, then the same command with --resume: bit for bit what an uninterrupted run gives."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitrail.core.files import read_json
from vitrail.models import edgevit
from vitrail.runs.run import Run
from vitrail.runs.train import train
from vitrail.training import TrainConfig

MOMENTS = ("middle", "writing", "between", "metrics", "end")


@pytest.fixture(scope="module")
def whole(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(config, run=tmp_path_factory.mktemp("whole") / "run", progress=False)


@pytest.fixture(scope="module")
def killed(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folders as dead processes left them, named after the moment of death."""
    folder = tmp_path_factory.mktemp("killed")
    values = {"config": config.to_dict(), "variant": dataclasses.asdict(edgevit.VARIANTS[config.model])}
    (folder / "config.json").write_text(json.dumps(values))
    script = Path(__file__).with_name("killed.py")
    command = [sys.executable, str(script), str(folder / "config.json"), str(folder), *MOMENTS]
    result = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert result.stdout.split() == [word for moment in MOMENTS for word in (moment, "-9")], result.stderr
    return folder


def rows(run: Run) -> list[dict[str, str]]:
    with run.metrics.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_as_if_nothing_had_happened(
    whole: Run, killed: Path, config: TrainConfig, moment: str
) -> None:
    run = Run(killed / moment)
    assert run.read().status == "training"
    assert not run.weights.exists()
    train(config, run=run, resume=True, progress=False)
    expected, found = load_file(whole.weights), load_file(run.weights)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert rows(whole) == rows(run)  # as text: not a digit differs, no epoch is there twice, none is missing
    timing = ("seconds",)
    first, second = (read_json(one.description)["trained"] for one in (whole, run))
    assert {k: v for k, v in first.items() if k not in timing} == {k: v for k, v in second.items() if k not in timing}
    names = {path.name for path in run.folder.rglob("*") if path.parent.name != "tensorboard"}
    assert not [name for name in names if name.startswith(".")]  # nothing half-written is left
