"""Tables fit the terminal, and numbers are never broken."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest

from vitrail.cli.display import Display, Output, number
from vitrail.cli.main import main


def shown(monkeypatch: pytest.MonkeyPatch, rows: Sequence[Sequence[object]], columns: Sequence[str], width: int) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    stream = io.StringIO()
    Display(Output(), stream).table("Title", columns, rows)
    return stream.getvalue()


def test_a_wide_table_loses_its_frame_and_no_number_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ("name", "parameters", "MACs", "image size", "weights", "paper")
    rows = [
        (
            "edgevit_nano_stride2",
            number(4.07, 2, " M"),
            number(0.559, 3, " G"),
            "256x256",
            2,
            "ECCV 2022, arXiv:2205.03436",
        )
    ]
    page = shown(monkeypatch, rows, columns, 80)
    assert max(len(line.rstrip()) for line in page.splitlines()) <= 80
    assert "4.07 M" in page
    assert "0.559 G" in page
    assert "…" not in page
    assert "┃" not in page
    assert "┃" in shown(monkeypatch, rows, columns, 200)


def test_a_row_is_a_paragraph_where_numbers_would_break(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ("candidate", *(f"p{i}" for i in range(12)))
    rows = [("onnxruntime float", *(number(123.4 + i, 1, " ms") for i in range(11)), None)]
    page = shown(monkeypatch, rows, columns, 60)
    assert max(map(len, page.splitlines())) <= 60
    assert " ".join(page.split()).startswith("Title onnxruntime float: p0 123.4 ms; p1 124.4 ms; ")
    assert page.count(" ms") + page.count("\nms") == 11


def test_a_pipe_is_as_wide_as_columns_says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert len(lines) < int(lines[0].split()[0]) * 2 + 10, "not more than two lines a model"
    assert "…" not in "".join(lines)
