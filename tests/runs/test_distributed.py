"""Two processes on one machine, over gloo."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitrail.data import AugmentConfig
from vitrail.runs.run import Run
from vitrail.runs.train import train
from vitrail.training import TrainConfig
from vitrail.training.distillation.config import DistillConfig
from vitrail.training.recorder import read_metrics

SCRIPT = """
import json, sys
import torch
from vitrail.training import TrainConfig
from vitrail.runs.train import train
torch.set_num_threads(1)
config = TrainConfig.from_dict(json.load(open(sys.argv[1])))
train(config, run=sys.argv[2], resume="resume" in sys.argv, progress=False)
"""


def train_in_two_processes(config: TrainConfig, folder: Path, *words: str) -> Run:
    (folder / "train.py").write_text(SCRIPT)
    (folder / "config.json").write_text(json.dumps(replace(config, devices=2, accelerator="cpu").to_dict()))
    command = [sys.executable, str(folder / "train.py"), str(folder / "config.json"), str(folder / "run"), *words]
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "RANK", "NODE_RANK")}
    result = subprocess.run(command, capture_output=True, text=True, timeout=170, env=environment, check=False)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    return Run(folder / "run")


@pytest.mark.slow
def test_two_processes_train_one_model(config: TrainConfig, tmp_path: Path) -> None:
    wide = replace(config, model="edgevit_nano_stride2", image_size=16, batch_size=4, epochs=2)
    run = train_in_two_processes(wide, tmp_path)
    assert run.read().status == "trained"
    assert load_file(run.weights)
    with run.metrics.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["epoch"] for row in found] == ["1", "2"]
    # Every validation image counts once, wherever it was evaluated: the share is a multiple of 1/8.
    assert all(float(row["val_top1"]) * 8 == round(float(row["val_top1"]) * 8) for row in found)
    train_in_two_processes(wide, tmp_path, "resume")


@pytest.mark.slow
def test_two_processes_are_one_with_their_joint_batch(config: TrainConfig, tmp_path: Path) -> None:
    """What is random a process, drop path and mixup, is off; BatchNorm alone would make a difference of 0.002."""
    same = replace(
        config,
        model="edgevit_nano_stride2",
        image_size=16,
        epochs=2,
        learning_rate=1e-3,
        drop_path_rate=0.0,
        augment=AugmentConfig(),
    )
    two = train_in_two_processes(replace(same, batch_size=4), tmp_path)
    one = train(replace(same, batch_size=8), run=tmp_path / "one", progress=False)
    for row, expected in zip(read_metrics(two.metrics), read_metrics(one.metrics), strict=True):
        for name in ("train_loss", "val_loss", "learning_rate"):
            assert row[name] == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.slow
def test_two_processes_release_the_backbone_as_one_does(config: TrainConfig, tmp_path: Path) -> None:
    same = replace(config, epochs=2, freeze_epochs=1.0, learning_rate=1e-3, drop_path_rate=0.0, augment=AugmentConfig())
    two = train_in_two_processes(replace(same, model="edgevit_nano_stride2", image_size=16, batch_size=4), tmp_path)
    one = train(replace(same, model="edgevit_nano_stride2", image_size=16), run=tmp_path / "one", progress=False)
    first, second = load_file(two.weights), load_file(one.weights)
    for name, value in second.items():
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("views", [0, 2])
def test_two_processes_learn_from_a_teacher_as_one_does(config: TrainConfig, tmp_path: Path, views: int) -> None:
    same = replace(
        config,
        model="edgevit_nano_stride2",
        image_size=16,
        epochs=2,
        learning_rate=1e-3,
        drop_path_rate=0.0,
        augment=AugmentConfig(),
    )
    teacher = train(replace(same, epochs=1), run=tmp_path / "teacher", progress=False)
    distill = DistillConfig(teacher=str(teacher.folder), teach=("logits", "features"), cache_teacher=views)
    two = train_in_two_processes(replace(same, batch_size=4, distill=distill), tmp_path)
    one = train(replace(same, batch_size=8, distill=distill), run=tmp_path / "one", progress=False)
    for row, expected in zip(read_metrics(two.metrics), read_metrics(one.metrics), strict=True):
        assert expected["train_loss_features"] > 0
        for name in ("train_loss", "train_loss_logits", "train_loss_features", "val_loss"):
            assert row[name] == pytest.approx(expected[name], rel=1e-3), name
