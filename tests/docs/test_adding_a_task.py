"""docs/adding-a-task.md, followed step by step: the page's own code becomes a task that every verb takes."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from docs.blocks import code_blocks
from PIL import Image

import vitrail.tasks
from vitrail.cli.main import main
from vitrail.core.errors import ConfigError, UnknownNameError
from vitrail.runs.load import load_task
from vitrail.runs.run import Run
from vitrail.tasks import TASKS, TaskKind, find_task

PAGE = "docs/adding-a-task.md"


@pytest.fixture
def brightness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskKind]:
    (file,) = code_blocks(PAGE, "python")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "brightness.py").write_text(file.code)
    monkeypatch.setattr(vitrail.tasks, "__path__", [*vitrail.tasks.__path__, str(tmp_path / "code")])
    module = importlib.import_module("vitrail.tasks.brightness")
    monkeypatch.setitem(TASKS, "brightness", module.BRIGHTNESS)
    yield module.BRIGHTNESS
    sys.modules.pop("vitrail.tasks.brightness")
    monkeypatch.delattr(vitrail.tasks, "brightness", raising=False)


FIELDS = {"embed_dims": [16, 32], "depths": [1, 1], "head_dim": 8, "sr_ratios": [2, 1], "strides": [4, 2]}


@pytest.fixture
def lights(tmp_path: Path) -> Path:
    (folder := tmp_path / "lights").mkdir()
    for index, value in enumerate(np.linspace(0, 1, 24)):
        Image.fromarray(np.full((32, 32, 3), round(255 * value), dtype=np.uint8)).save(
            folder / f"{value:.3f}_{index}.png"
        )
    return folder


def test_the_task_of_the_page_goes_through_the_verbs(
    brightness: TaskKind, lights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"model": "edgevit_nano_stride2", "model_fields": FIELDS}))
    words = f"--config {tmp_path}/small.yaml --task brightness --image-size 32 --epochs 12 --batch-size 8"
    words += " --num-workers 0"
    words += " --learning-rate 2e-3 --rand-augment-num-ops 0 --ema-decay 0.8 --drop-path-rate 0"
    assert main(["train", *words.split(), "--data", str(lights), "--run", str(run), "--json"]) == 0
    best = json.loads(capsys.readouterr().out)
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    errors = [float(row[rows[0].index("val_error")]) for row in rows[1:]]
    assert best["val_error"] == min(errors), "the lowest error is the best"
    assert best["val_error"] < 0.15, "always saying one half errs by a quarter"
    assert isinstance(load_task(Run(run)), brightness.task)
    assert json.loads((run / "run.json").read_text())["task"] == "brightness"
    assert main(["predict", str(run), str(lights), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["predictions"]
    assert len(answers) == 24
    assert answers[-1]["brightness"] > answers[0]["brightness"] + 0.3
    assert main(["export", str(run), "--num-images", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["max_relative_error"] < 1e-4
    assert main(["predict", str(run), str(lights), "--out", str(tmp_path / "pictures")]) == 2
    assert "words, which need no pictures" in capsys.readouterr().err


def test_what_a_task_is_told_in_vain(brightness: TaskKind) -> None:
    with pytest.raises(ConfigError, match="task 'brightness' has no option 'head'; it has none"):
        brightness.read_options({"head": "fpn"})
    with pytest.raises(UnknownNameError, match=r"unknown task 'lightness'; known: classification, .*brightness"):
        find_task("lightness")
