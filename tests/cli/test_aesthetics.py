"""A model of taste, through the verbs: people who like it bright."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitrail.cli.main import main

Capture = pytest.CaptureFixture[str]


def result(capsys: Capture, words: list[str]) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scored")
    (root / "images").mkdir()
    random = np.random.default_rng(0)
    lines = ["image,score_1_to_5"]
    for i in range(32):
        light = random.integers(30, 220)
        pixels = np.clip(light + random.integers(-30, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
        lines.append(f"{i}.png,{1 + 4 * light / 255:.3f}")
    (root / "scores.csv").write_text("\n".join(lines))
    return root


@pytest.mark.slow
def test_aesthetics_goes_through_the_verbs(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    run = str(tmp_path / "run")
    words = ["train", "--task", "aesthetics", "--data", str(folder), "--run", run, "--model", "revit_nano_patch4"]
    words += ["--image-size", "16", "--epochs", "8", "--batch-size", "8", "--num-workers", "0", "--ema-decay", "0.8"]
    best = result(capsys, [*words, "--learning-rate", "2e-3", "--drop-path-rate", "0"])
    assert best["val_srcc"] > 0.7
    values = result(capsys, ["evaluate", run])
    assert values["reports"]["torch-float"]["srcc"] == pytest.approx(best["val_srcc"], abs=1e-4)
    assert [score["name"] for score in values["scores"]] == ["srcc", "plcc", "accuracy", "mean_error"]

    capsys.readouterr()
    assert main(["predict", run, str(folder / "images"), "--csv", "--out", str(tmp_path / "out")]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    scores = [float(row["score"]) for row in rows]
    assert len(rows) == 32
    assert scores == sorted(scores, reverse=True)
    light = [np.asarray(Image.open(row["image"])).mean() for row in rows]
    assert np.mean(light[:8]) > np.mean(light[-8:]) + 30
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        pixels = np.asarray(sheet)
        upper, lower = (part[part < 250].mean() for part in np.array_split(pixels, 2))
        assert upper > lower + 20, "the best above, the worst below"

    (record,) = result(capsys, ["export", run, "--num-images", "4"])
    assert record["max_relative_error"] < 1e-4
    bench = ["bench", run, "--min-runs", "2", "--min-seconds", "0", "--warmup-runs", "1", "--no-memory"]
    assert result(capsys, [*bench, "--runtimes", "onnxruntime"])[0]["failure"] is None
    assert main(["report", run]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    for text in ("SRCC", "PLCC", "accuracy at the threshold"):
        assert text in page


def test_a_score_out_of_range_stops_before_anything_is_trained(tmp_path: Path, capsys: Capture) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "scores.csv").write_text("image,score\na.png,12\nb.png,3\n")
    words = ["train", "--task", "aesthetics", "--data", str(tmp_path), "--run", str(tmp_path / "run")]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "score 12 is outside of 1 to 10" in message
    assert "'b.png' is missing" in message
    assert not (tmp_path / "run" / "run.json").exists()
