"""Files and pipes get UTF-8, whatever the system's encoding is; no name loses an answer."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from vitrail.cli import models, predict
from vitrail.cli.main import main
from vitrail.core.errors import ConfigError
from vitrail.evaluation import Prediction, Predictions, SkippedImage
from vitrail.runs.load import load_task
from vitrail.runs.predict import ImageSource
from vitrail.runs.run import Run
from vitrail.tasks import answers_of
from vitrail.tasks.classification import ClassScore

NAMES = ["猫.png", "ü.png", "\U0001f408.png", "gar\udce7on.png", "\ud83d.png"]
ENCODINGS = ["cp1252", "ascii", "latin-1", "utf-8", "cp932"]


class Pipe:
    """Standard output and error of a system with some encoding, as a file or pipe gets them."""

    def __init__(self, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out, self.err = io.BytesIO(), io.BytesIO()
        for name, buffer in (("stdout", self.out), ("stderr", self.err)):
            monkeypatch.setattr(f"sys.{name}", io.TextIOWrapper(buffer, encoding=encoding, write_through=True))

    def text(self, buffer: io.BytesIO) -> str:
        return buffer.getvalue().decode("utf-8")


@pytest.fixture
def run(old_run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose answers are made up, to images that need not exist."""
    answers = answers_of(load_task(old_run))

    def predict_run(_: Run, sources: list[ImageSource], **__: Any) -> Predictions:
        answer = [ClassScore(index=3, label="3", probability=0.5)]
        images = tuple(Prediction(Path(str(source)), answer) for source in sources)
        skipped = tuple(SkippedImage(Path(name), f"{name} is broken") for name in NAMES)
        return Predictions(images=images, skipped=skipped, answers=answers)

    monkeypatch.setattr(predict, "predict_run", predict_run)
    return old_run


def readable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_answer_is_printed_under_every_name(encoding: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe(encoding, monkeypatch)
    assert main(["predict", str(run.folder), *NAMES, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(pipe.text(pipe.out))))
    assert [row["image"] for row in rows] == [readable(name) for name in NAMES]
    warnings = pipe.text(pipe.err)
    assert all(readable(name) in warnings for name in NAMES)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_and_tables_hold_every_name(encoding: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe(encoding, monkeypatch)
    assert main(["predict", str(run.folder), *NAMES, "--json"]) == 0
    assert [row["image"] for row in json.loads(pipe.text(pipe.out))["predictions"]] == NAMES
    pipe = Pipe(encoding, monkeypatch)
    assert main(["predict", str(run.folder), *NAMES]) == 0
    assert all(readable(name) in pipe.text(pipe.out) for name in NAMES)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_errors_hold_every_name(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> list[str]:
        raise ConfigError(" ".join(NAMES))

    monkeypatch.setattr(models, "list_models", broken)
    pipe = Pipe(encoding, monkeypatch)
    assert main(["models"]) == 2
    assert pipe.text(pipe.err) == f"vitrail: error: {' '.join(map(readable, NAMES))}\n"


def test_lists_of_paths_are_read_as_bytes_that_need_be_no_utf8(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given = io.TextIOWrapper(io.BytesIO("猫.png\n".encode() + b"gar\xe7on.png\n"), encoding="cp1252", errors="strict")
    monkeypatch.setattr("sys.stdin", given)
    pipe = Pipe("cp1252", monkeypatch)
    assert main(["predict", str(run.folder), "-", "--json"]) == 0
    assert [row["image"] for row in json.loads(pipe.text(pipe.out))["predictions"]] == ["猫.png", "gar\udce7on.png"]


def test_terminals_keep_their_encoding(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe("cp1252", monkeypatch)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["predict", str(run.folder), "ü猫.png", "--csv"]) == 0
    assert b"\xfc\\u732b.png" in pipe.out.getvalue()
