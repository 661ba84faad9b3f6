"""The page of models says what docs/results/models.json holds for every variant; what is not known is empty."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from vitrail.models import list_models

ROOT = Path(__file__).parents[2]
OF_TESTS = "edgevit_test"
"""A variant that other tests add while they run."""

RESULTS = json.loads((ROOT / "docs/results/models.json").read_text())


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("zoo", ROOT / "benchmarks" / "zoo.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_page_shows_what_the_file_holds(script: ModuleType) -> None:
    assert (ROOT / "docs/models.md").read_text() == script.page(RESULTS)


def test_the_file_is_of_todays_models_and_times(script: ModuleType) -> None:
    latency = json.loads((ROOT / "docs/results/latency.json").read_text())
    rows = [row for row in json.loads(json.dumps(script.rows_of(latency))) if row["name"] != OF_TESTS]
    assert rows == RESULTS["rows"], "renew it: python benchmarks/zoo.py"
    assert {row["name"] for row in RESULTS["rows"]} == {*list_models()} - {OF_TESTS}


def test_what_is_not_known_is_empty(script: ModuleType) -> None:
    row = next(row for row in RESULTS["rows"] if row["name"] == "edgevit_xxs")
    unknown = row | {"cpu_ms": {"torch": 29.44, "onnxruntime": None, "openvino": None}}
    assert script._line(unknown) == "| `edgevit_xxs` | 224 | 4.07 | 0.55 |  |  | 29.4 |  |  |  |"
    known = unknown | {"weights": ["a", "b"], "top1": 75.66, "top1_size": [256, 256], "image_size": [224, 192]}
    known["int8"] = {"mb": 6.09, "onnxruntime": 9.67, "openvino": 6.8}
    int8 = "6.1 MB, 9.7 / 6.8 ms"
    assert script._line(known) == f"| `edgevit_xxs` | 224x192 | 4.07 | 0.55 | 2 | 75.7 at 256 | 29.4 |  |  | {int8} |"


def test_eight_bit_files_are_those_of_their_page(script: ModuleType) -> None:
    table = "| runtime | file | ms | of float32 | MB | of float32 |\n|---|---|---|---|---|---|\n"
    rows = "| onnxruntime | float32 | 9 | 1 | 8 | 1 |\n| onnxruntime | int8 | 5 | .5 | 2 | .2 |\n"
    rows += "| openvino | int8 | 4 | . | 2 | . |\n"
    text = f"### a_b_64\n\n{table}{rows}\n### other\n\n{table}{rows}\n### c_64\n\n| x |\n|---|\n"
    assert script.integer_files(text) == {"a_b": {"mb": 2, "onnxruntime": 5, "openvino": 4}}
