"""The page on timm's networks says what was tried, and why what did not pass did not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("timm_page", ROOT / "benchmarks" / "timm_page.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def row(**changes: Any) -> dict[str, Any]:
    known = {
        "architecture": "net_s",
        "module": "net",
        "machine": "a machine",
        "date": "2026-01-02",
        "versions": {"timm": "1"},
        "size": {"side": 64, "parameters": 1_200_000},
        "levels": {"strides": [4, 8], "plain": False},
        "train": {"first": 2.0, "last": 1.5},
        "export": {"layers": 9, "layers_in_file": 5, "onnx in onnxruntime": 2e-6, "openvino in openvino": 3e-6},
        "int8": {"onnxruntime": 0.0123, "onnxruntime from simulation": 0.2, "openvino": 0.5},
    }
    return known | changes


def test_the_page_shows_the_rows_that_are_kept(script: ModuleType) -> None:
    rows = json.loads((ROOT / "docs/results/timm.json").read_text())
    assert (ROOT / "docs/results/timm.md").read_text() == script.page(rows)


def test_a_row_has_its_figures_and_a_star_where_the_verb_refuses_the_file(script: ModuleType) -> None:
    line = next(one for one in script.page([row()]).splitlines() if one.startswith("| `net_s`"))
    assert (
        line == "| `net_s` | net | 64 | 1.2 M | 4, 8 | 2.00 -> 1.50 | 9 -> 5 | 2e-06 |  | 3e-06 | 0.012* | 0.500 |  |"
    )


def test_reasons_are_numbered_once_and_counted(script: ModuleType) -> None:
    broken = row(architecture="net_b", export={"reason": "no operation"}, int8={"fault": "it crashed"})
    text = script.page([row(), broken, row(architecture="net_c", export={"reason": "no operation"})])
    assert "3 networks of 1 of timm's files; 3 train; 3 give levels to dense tasks; 1 export" in text
    assert text.count("no operation") == 1
    assert "1. no operation\n2. it crashed\n" in text
    assert text.count("no (1)") == 6


def test_a_network_that_takes_no_size_has_a_row(script: ModuleType) -> None:
    nothing = row(size={"reason": "no size is taken"})
    for stage in ("levels", "train", "export", "int8"):
        del nothing[stage]
    assert "| `net_s` | net | no (1) |" in script.page([nothing])
