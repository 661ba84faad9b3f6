"""From images without labels to a classifier, through the verbs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.cli.main import main
from vitrail.models import create_model
from vitrail.runs.load import load_task
from vitrail.runs.run import Run

Capture = pytest.CaptureFixture[str]
BATCHES = ["--batch-size", "8", "--num-workers", "0"]
MODEL = ["--model", "revit_nano_patch4", "--image-size", "16", *BATCHES]


def result(capsys: Capture, words: list[str]) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes: dark to the left, dark to the right."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for label in ("left", "right"):
        (folder / label).mkdir()
        for i in range(12):
            ramp = np.linspace(20, 200, 16)[None, :, None] + random.integers(-20, 20, (16, 16, 3))
            pixels = np.clip(ramp if label == "left" else ramp[:, ::-1], 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def pretrained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "pre"
    words = ["pretrain", "--objective", "mae", "--data", str(images), "--run", str(run), *MODEL, "--epochs", "12"]
    assert main([*words, "--learning-rate", "2e-3", "--ema-decay", "0.8", "--hflip", "0", "--json"]) == 0
    return run


def test_a_pretrained_backbone_becomes_a_classifier(
    images: Path, pretrained: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = str(tmp_path / "run")
    words = ["train", "--data", str(images), "--weights", str(pretrained), "--run", run, *MODEL, "--epochs", "1"]
    result(capsys, [*words, "--learning-rate", "1e-9", "--ema-decay", "0"])
    before, after = load_task(Run(pretrained)).backbone, load_task(Run(Path(run))).backbone
    fresh = create_model("revit_nano_patch4", num_classes=2, image_size=16)
    assert before.num_classes == 0
    assert after.num_classes == 2
    for name, weight in before.named_parameters():
        torch.testing.assert_close(weight, after.get_parameter(name), atol=1e-6, rtol=0)
    assert not torch.allclose(after.get_parameter("stem.proj.weight"), fresh.get_parameter("stem.proj.weight"))


def test_a_run_of_another_model_is_refused(images: Path, pretrained: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["train", "--data", str(images), "--run", str(tmp_path / "run"), *BATCHES]
    assert main([*words, "--weights", str(pretrained), "--model", "vit_nano_patch4"]) == 2
    assert "does not fit ViT" in capsys.readouterr().err
    assert main([*words, "--weights", str(images)]) == 2
    assert "do not tell which model they are of; give --model too" in capsys.readouterr().err
    assert main([*words, "--weights", str(images), "--model", "vit_nano_patch4"]) == 2
    assert "has no model.safetensors" in capsys.readouterr().err


def test_position_tables_follow_the_image_size(images: Path, pretrained: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["train", "--data", str(images), "--weights", str(pretrained), "--run", str(tmp_path / "run"), *BATCHES]
    result(
        capsys,
        [
            *words,
            "--model",
            "revit_nano_patch4",
            "--image-size",
            "24",
            "--epochs",
            "1",
            "--learning-rate",
            "1e-9",
            "--ema-decay",
            "0",
        ],
    )
    assert load_task(Run(tmp_path / "run")).backbone.get_parameter("pos_embed").shape == (1, 36, 96)


def test_pretraining_goes_through_the_verbs(images: Path, pretrained: Path, tmp_path: Path, capsys: Capture) -> None:
    values = result(capsys, ["evaluate", str(pretrained)])
    loss = values["reports"]["torch-float"]["masked_loss"]
    assert loss < 0.9, "predicting each patch's mean costs 1"
    shown = result(capsys, ["predict", str(pretrained), str(images / "left"), "--out", str(tmp_path / "seen")])
    assert len(shown["predictions"]) == 12
    with Image.open(tmp_path / "seen" / "3.png") as picture:
        assert picture.size == (48, 16)
    (record,) = result(capsys, ["export", str(pretrained), "--num-images", "4"])
    assert record["max_relative_error"] < 1e-4
    bench = ["bench", str(pretrained), "--min-runs", "2", "--min-seconds", "0", "--warmup-runs", "1", "--no-memory"]
    rows = result(capsys, [*bench, "--runtimes", "onnxruntime"])
    assert rows[0]["failure"] is None
    assert main(["report", str(pretrained)]) == 0
    assert "loss on hidden patches" in (pretrained / "report.html").read_text()


def test_interrupted_pretraining_goes_on(images: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["pretrain", "--data", str(images), "--run", str(tmp_path / "run"), *MODEL, "--epochs", "2"]
    result(capsys, words)
    assert main(words) == 2
    assert "already trained" in capsys.readouterr().err
    assert result(capsys, [*words, "--resume"])["epochs"] == 2


def test_other_tasks_have_another_verb(capsys: Capture) -> None:
    assert main(["pretrain", "--task", "classification"]) == 2
    assert "use vitrail train" in capsys.readouterr().err
    assert main(["pretrain", "--objective", "guess"]) == 2
    assert main(["pretrain", "--option.colour", "red"]) == 2
    assert "has no option 'colour'; it has objective" in capsys.readouterr().err
