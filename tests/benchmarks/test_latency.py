"""The page on MACs and latency says what was measured, and its figures have known answers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from vitrail.models import FAMILIES

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


def rows_of(runtime: str, **times: float) -> list[dict[str, object]]:
    macs = {"a": 1.0, "b": 1.4, "c": 9.0}
    return [
        {"model": n, "macs": macs[n] * 1e9, "params": 10 * macs[n], "cpu_ms": ms, "runtime": runtime}
        for n, ms in times.items()
    ]


def test_pairs_are_misjudged_where_fewer_macs_take_longer(script: ModuleType) -> None:
    rows = rows_of("torch", a=30.0, b=20.0, c=25.0)
    every, near = script.pairs_of(rows)
    assert (len(every), len(near)) == (3, 1)
    assert [(fewer["model"], more["model"]) for fewer, more in script.misjudged(every)] == [("a", "b"), ("a", "c")]
    assert "`a` (1.00 x 10^9 MACs) takes 30.0 ms, `b` (1.40 x 10^9) 20.0 ms" in script._worst(rows, "torch")
    table = "\n".join(script._proxies({"torch": rows_of("torch", a=30.0, b=42.0, c=90.0)}))
    assert "of MACs with time | 1.00 |" in table
    assert "10^9 MACs take (ms) | 10 to 30 |" in table
    assert "is slower | 0 of 3 |" in table
    assert [len(script.misjudged(script.pairs_of(rows_of("torch", a=1.04, b=1.0))[0], by)) for by in (1, 1.05)] == [
        1,
        0,
    ]


def test_runtimes_disagree_where_neighbours_change_places(script: ModuleType) -> None:
    rows = {"torch": rows_of("torch", a=30.0, b=20.0, c=40.0), "openvino": rows_of("openvino", a=10.0, b=20.0, c=40.0)}
    assert (
        script._between_runtimes(rows)[-1]
        == "| torch, openvino | 0.50 | 1 of 1 | the first takes 1.0 to 3.0 times as long |"
    )
    rows["openvino"] = rows_of("openvino", a=10.0, b=10.4, c=40.0)
    assert "| 0 of 1 |" in script._between_runtimes(rows)[-1]  # 4 % may be noise


def test_every_family_was_measured_in_every_runtime(script: ModuleType) -> None:
    rows = json.loads((ROOT / "docs/results/latency.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {*script.MODELS}
    for runtime in ("torch", "onnxruntime", "openvino"):
        assert {row["family"] for row in rows if row["runtime"] == runtime and not row["failure"]} == {*FAMILIES}


def test_the_package_carries_what_was_measured(script: ModuleType) -> None:
    results = json.loads((ROOT / "docs/results/latency.json").read_text())
    assert json.loads(script.MEASURED.read_text()) == script.times_table(results)
