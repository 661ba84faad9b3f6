"""The page on MACs and latency says what was measured, and its figures have known answers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("latency", ROOT / "benchmarks" / "latency.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_page_shows_what_was_measured(script: ModuleType) -> None:
    results = json.loads((ROOT / "docs/results/latency.json").read_text())
    assert (ROOT / "docs/results/latency.md").read_text() == script.page(results, "latency")


def test_ranks_correlate_as_they_should(script: ModuleType) -> None:
    assert script.spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert script.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert script.spearman([1, 1, 2], [5, 6, 7]) == pytest.approx(0.8660254)  # ties share the mean of their ranks


def test_pairs_are_misjudged_where_fewer_macs_take_longer(script: ModuleType) -> None:
    rows = [
        {"model": name, "macs": macs * 1e9, "cpu_ms": cpu_ms, "runtime": "torch"}
        for name, macs, cpu_ms in (("a", 1.0, 30.0), ("b", 1.4, 20.0), ("c", 9.0, 25.0))
    ]
    text = " ".join(script._misjudged(rows, "torch"))
    assert "from 3 to 30 ms" in text
    assert "misjudge 2 of 3" in text
    assert "of 1 pairs whose MACs differ by less than a factor of 1.5, the one with fewer is the slower" in text
    assert "`a` (1.00 x 10^9 MACs) takes 30.0 ms, `b` (1.40 x 10^9) 20.0 ms" in text
