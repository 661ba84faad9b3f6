from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "quantization_table.py"


def row(**changes: Any) -> dict[str, Any]:
    known = {"model": "vit", "method": "float", "bits": "float", "seed": 0, "top1": 0.8, "n": 100, "executed": True}
    return known | {"size_bytes": 1000, "seconds": 1.0} | changes


def run(*files: Path) -> str:
    command = [sys.executable, str(SCRIPT), *map(str, files)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("rows")
    ours = [
        row(),
        row(method="ours", bits="W4A8", top1=0.78, size_bytes=150, agreement=0.9),
        row(method="ours", bits="W4A8", top1=0.76, size_bytes=150, agreement=0.94, seed=1),
        row(method="ours", bits="W4A4", top1=0.5, size_bytes=150, executed=False),
    ]
    peers = [{"model": "vit", "method": "peer", "seed": 0, "error": "ValueError: no"}, row(model="maxvit", top1=1.0)]
    for name, rows in (("ours", ours), ("peers", peers)):
        (folder / name).write_text("".join(json.dumps(each) + "\n" for each in rows))
    return run(folder / "ours", folder / "peers")


def test_seeds_are_averaged_and_compared_with_float(text: str) -> None:
    # Wilson's interval of 77 of 100
    assert "| ours | W4A8 | 77.00 (76.00 to 78.00) | +3.00 | 67.8 to 84.2 | 92.00 | 0.15x | 1 | 2 |" in text


def test_simulated_results_are_never_among_executed_ones(text: str) -> None:
    executed, simulated = text.split("### vit: simulated")
    assert "W4A4" not in executed
    assert "| ours | W4A4 | 50.00 | +30.00 |" in simulated
    assert "### vit: executed" in executed


def test_failures_and_models_without_errors_are_told(text: str) -> None:
    assert "vit: peer failed: ValueError: no" in text
    assert "### maxvit: executed" in text
    assert "| float | float | 100.00 | +0.00 | 96.3 to 100.0 |" in text
