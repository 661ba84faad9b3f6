"""A named pipe under the name of any file that Vitrail reads ends in one line, not in a wait without end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vitrail.bench import append_results, read_results
from vitrail.bench.energy.csv_trace import read_trace
from vitrail.cli.options import effective_config
from vitrail.compare.plan_file import read_plan
from vitrail.core.errors import VitrailError
from vitrail.data.formats.csv_rows import read_lines, read_rows
from vitrail.models.checkpoint import read_trained, read_weights
from vitrail.report.references import read_references
from vitrail.runs.run import Run
from vitrail.runtimes import open_session
from vitrail.serve.browser.store import Store
from vitrail.training import TrainConfig
from vitrail.training.recorder import read_checkpoint, read_metrics

READERS: dict[str, Callable[[Path], Any]] = {
    "settings.yaml": lambda path: effective_config(TrainConfig(), path, {}),
    "comparison.yaml": read_plan,
    "published.yaml": read_references,
    "published.csv": read_references,
    "trace.csv": read_trace,
    "labels.csv": lambda path: read_rows(path, ""),
    "classes.txt": lambda path: read_lines(path, ""),
    "run.json": lambda path: Run(path.parent).read(),
    "bench.jsonl": read_results,
    "rows.jsonl": lambda path: append_results(path, []),
    "metrics.csv": read_metrics,
    "last.ckpt": read_checkpoint,
    "model.safetensors": read_trained,
    "weights.safetensors": read_weights,
    "weights.pth": read_weights,
    "weights.npz": read_weights,
    "model.onnx": lambda path: open_session(path, "onnxruntime"),
    "model.xml": lambda path: open_session(path, "openvino"),
    "devices.sqlite": Store,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises((VitrailError, OSError), match=r"named pipe"):
        READERS[name](tmp_path / name)


@pytest.mark.timeout(60)
def test_a_pipe_in_the_place_of_openvinos_weights_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net/>")
    os.mkfifo(tmp_path / "model.bin")
    with pytest.raises(VitrailError, match=r"OpenVINO cannot load model.xml: .*named pipe"):
        open_session(tmp_path / "model.xml", "openvino")


def _itself() -> dict[str, Any]:
    state: dict[str, Any] = {}
    state["state_dict"] = state
    return state


def _in_turn() -> dict[str, Any]:
    state: dict[str, Any] = {"model": {"state_dict": {}}}
    state["model"]["state_dict"]["model_ema"] = state
    return state


def _deep() -> dict[str, Any]:
    state: dict[str, Any] = {"weight": torch.zeros(1)}
    for _ in range(100):
        state = {"model": state}
    return state


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [_itself, _in_turn, _deep])
def test_a_state_dict_that_contains_itself_is_none(tmp_path: Path, make: Callable[[], dict[str, Any]]) -> None:
    torch.save(make(), tmp_path / "w.pth")
    with pytest.raises(VitrailError, match=r"w\.pth holds no state dict"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.timeout(60)
def test_a_name_of_prefixes_alone_is_not_taken_off_piece_by_piece(tmp_path: Path) -> None:
    name = "module." * 300_000 + "weight"
    torch.save({name: torch.zeros(1)}, tmp_path / "w.pth")
    ((found, _),) = read_weights(tmp_path / "w.pth").items()
    assert len(name) - len(found) == 16 * len("module.")
