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
from safetensors.torch import load_file

from vitrail.runs.run import Run
from vitrail.training import TrainConfig

SCRIPT = """
import json, sys
import torch
from vitrail.training import TrainConfig
from vitrail.runs.train import train
torch.set_num_threads(1)
config = TrainConfig.from_dict(json.load(open(sys.argv[1])))
train(config, run=sys.argv[2], resume="resume" in sys.argv, progress=False)
"""


@pytest.mark.slow
def test_two_processes_train_one_model(config: TrainConfig, tmp_path: Path) -> None:
    wide = replace(
        config, model="edgevit_nano_stride2", image_size=16, batch_size=4, devices=2, accelerator="cpu", epochs=2
    )
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "config.json").write_text(json.dumps(wide.to_dict()))
    command = [sys.executable, str(tmp_path / "train.py"), str(tmp_path / "config.json"), str(tmp_path / "run")]
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "RANK", "NODE_RANK")}
    result = subprocess.run(command, capture_output=True, text=True, timeout=170, env=environment, check=False)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    run = Run(tmp_path / "run")
    assert run.read().status == "trained"
    assert load_file(run.weights)
    with run.metrics.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["epoch"] for row in found] == ["1", "2"]
    # Every validation image counts once, wherever it was evaluated: the share is a multiple of 1/8.
    assert all(float(row["val_top1"]) * 8 == round(float(row["val_top1"]) * 8) for row in found)
    again = subprocess.run(
        [*command, "resume"], capture_output=True, text=True, timeout=170, env=environment, check=False
    )
    assert again.returncode == 0, again.stderr
