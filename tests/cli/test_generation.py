"""A generator, through the verbs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitrail.cli.main import main
from vitrail.models import maxvit_gan
from vitrail.models.maxvit_gan import GeneratorConfig

Capture = pytest.CaptureFixture[str]
TINY = GeneratorConfig(embed_dims=(8, 8), depths=(1, 1), latent_dim=4, memory_tokens=2, memory_dim=8, head_dim=8)


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(maxvit_gan.GENERATORS, "maxvit_gan_test_16", TINY)
        yield


def result(capsys: Capture, words: list[str]) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_generation_goes_through_the_verbs(tmp_path: Path, capsys: Capture) -> None:
    run, data = str(tmp_path / "run"), tmp_path / "data"
    data.mkdir()
    for i in range(32):
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / f"{i}.png")
    words = ["train", "--task", "generation", "--model", "maxvit_gan_test_16", "--data", str(data), "--run", run]
    words += ["--val-fraction", "0.4", "--epochs", "1", "--batch-size", "8", "--num-workers", "0", "--ema-decay", "0.5"]
    best = result(capsys, [*words, "--option.discriminator_width", "0.02"])
    assert best["val_frechet"] > 0
    values = result(capsys, ["evaluate", run])
    assert {"frechet", "kernel", "precision", "recall"} <= values["reports"]["torch-float"].keys()

    made = tmp_path / "made"
    files = result(capsys, ["predict", run, "--count", "9", "--seed", "3", "--out", str(made)])["files"]
    assert len(files) == 11
    with Image.open(made / "samples.png") as page:
        assert page.size == (3 * 34 + 2, 3 * 34 + 2)
    first = (made / "0004.png").read_bytes()
    result(capsys, ["predict", run, "--count", "9", "--seed", "3", "--out", str(made)])
    assert (made / "0004.png").read_bytes() == first
    result(capsys, ["predict", run, "--count", "9", "--seed", "4", "--out", str(made)])
    assert (made / "0004.png").read_bytes() != first

    (record,) = result(capsys, ["export", run, "--num-images", "4"])
    assert record["max_relative_error"] < 1e-4
    bench = ["bench", run, "--min-runs", "2", "--min-seconds", "0", "--warmup-runs", "1", "--no-memory"]
    rows = result(capsys, [*bench, "--runtimes", "torch", "onnxruntime"])
    assert [row["failure"] for row in rows if row["variant"] == "float"] == [None, None]
    assert main(["report", run]) == 0
    page_text = (tmp_path / "run" / "report.html").read_text()
    for text in ("Fréchet distance", "precision", "recall", "made picture 1"):
        assert text in page_text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "edgevit_xxs"], "unknown generator 'edgevit_xxs'; known: maxvit_gan_128"),
        (["--model", "maxvit_gan_test_16", "--image-size", "24"], "makes pictures of 16 pixels"),
        (["--model", "maxvit_gan_test_16", "--option.features", "runs/none"], "runs/none does not exist"),
    ],
)
def test_mistakes(words: list[str], message: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["train", "--task", "generation", "--run", str(tmp_path / "run"), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_generator_of_one_class_cannot_be_conditional(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    for i in range(8):
        Image.new("RGB", (16, 16), (i, i, i)).save(tmp_path / "data" / "cat" / f"{i}.png")
    words = ["train", "--task", "generation", "--model", "maxvit_gan_test_16", "--data", str(tmp_path / "data")]
    assert main([*words, "--option.conditional", "true", "--run", str(tmp_path / "run")]) == 2
    assert "the data has 0 classes" in capsys.readouterr().err
