"""``vitrail models --recommend``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from vitrail.cli.main import main

Capture = pytest.CaptureFixture[str]


def test_models_are_named_in_eighty_columns(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(2):
            Image.new("RGB", (20, 20), (index, 0, ord(name))).save(tmp_path / name / f"{index}.png")
    words = ["models", "mobilevit_x*", "--recommend", "--data", str(tmp_path), "--max-latency-ms", "20"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[: next(index for index, line in enumerate(lines) if "training images of" in line)]
    assert max(map(len, table)) <= 80
    assert "mobilevit_xs" in table[2]
    assert "74.7" in " ".join(table)
    assert lines[-1] == f"Next: vitrail train --data {tmp_path} --model mobilevit_xs --weights pretrained"
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["model"] == "mobilevit_xs"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--recommend"], "--recommend needs the images: add --data FOLDER"),
        (["--data", "sample"], "--data belongs to --recommend"),
        (["--max-size-mb", "3"], "--max-size-mb belongs to --recommend"),
        (["--recommend", "--data", "sample", "--max-latency-ms", "-1"], "--max-latency-ms -1 is not above 0"),
        (["--recommend", "--data", "sample", "--max-latency-ms", "nan"], "is not above 0"),
        (["--recommend", "--data", "sample", "--image-size", "1", "2", "3"], "neither one number"),
        (["--recommend", "--data", "nowhere"], "nowhere"),
        (["vit_tini*", "--recommend", "--data", "sample"], "unknown model"),
        (["--recommend", "--data", "sample", "--task", "generation"], "trains its models from nothing"),
        (["--recommend", "--data", "sample", "--weights", "vit_tiny_patch16=/nowhere/x.pth"], "do not exist"),
    ],
)
def test_mistakes_are_one_line(words: list[str], told: str, capsys: Capture) -> None:
    assert main(["models", *words]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
