"""``vitrail probe`` on the command line and from Python."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import vitrail
from vitrail.cli.main import main
from vitrail.models import create_model
from vitrail.runs import probe as module
from vitrail.training import cross_validation

Capture = pytest.CaptureFixture[str]
MODEL = "vitae_plain_nano_patch4"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two colours, and weights."""
    place, draw = tmp_path_factory.mktemp("place"), np.random.default_rng(0)
    for channel, name in enumerate(("red", "green")):
        (place / "photos" / name).mkdir(parents=True)
        for index in range(10):
            pixels = draw.integers(0, 120, (16, 16, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(place / "photos" / name / f"{index}.png")
    torch.manual_seed(0)
    save_file(create_model(MODEL, num_classes=5, image_size=16).state_dict(), place / "w.safetensors")
    return place


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_validation, "NESTED_UP_TO", 0)
    monkeypatch.setattr(module, "TIMING", replace(module.TIMING, min_runs=2, min_seconds=0.0, warmup_seconds=0.0))


def words(place: Path, run: str) -> list[str]:
    given = ["--model", f"{MODEL}={place / 'w.safetensors'}", "--image-size", "16", "--num-workers", "0"]
    return ["probe", str(place / "photos"), *given, "--cache", str(place / "cache"), "--run", str(place / run)]


def test_the_verb_prints_a_table_and_writes_a_run(place: Path, capsys: Capture) -> None:
    assert main(words(place, "runs/one")) == 0
    out = capsys.readouterr().out
    for text in (
        "linear probe",
        "nearest neighbours",
        "always '",
        "Fine-tune",
        "Twice the labels",
        "Next: vitrail train",
    ):
        assert text in out
    assert (place / "runs/one/probe.html").exists()
    assert main(["report", str(place / "runs/one"), "--quiet"]) == 0
    page = (place / "runs/one/report.html").read_text()
    assert "a linear probe of a frozen backbone" in page
    assert "no epochs" in page
    assert main(words(place, "runs/one")) == 2
    assert "already trained" in capsys.readouterr().err
    assert main([*words(place, "runs/one"), "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backbones"][0]["label"] == MODEL


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--data", "elsewhere"], "are two folders; give one of them"),
        (["--task", "pose"], "cannot do the task 'pose'"),
        (["--num-images", "0"], "--num-images 0 is below 1"),
        (["--class-weights", "x"], "balanced"),
    ],
)
def test_mistakes_are_one_line(more: list[str], told: str, place: Path, capsys: Capture) -> None:
    assert main([*words(place, "runs/wrong"), *more]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (place / "runs/wrong").exists()


def test_python_has_it_too(place: Path) -> None:
    found = vitrail.probe(
        place / "photos",
        f"{MODEL}={place / 'w.safetensors'}",
        run=place / "runs/python",
        image_size=16,
        num_workers="0",
        cache=place / "cache",
        progress=False,
    )
    assert found[0].model == MODEL
    assert "Fine-tune" in repr(found)
    assert vitrail.open_run(place / "runs/python").read().trained.keep == "probe"
