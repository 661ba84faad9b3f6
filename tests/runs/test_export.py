"""The files of a run, and how a file of other weights is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from vitrail.bench import BenchConfig
from vitrail.core.files import file_hash
from vitrail.core.types import Preprocessing
from vitrail.runs.bench import bench_run
from vitrail.runs.export import export_run, stale_reason
from vitrail.runs.run import Run


class Mean(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))

    def inputs(self, images: Tensor) -> Tensor:
        return images

    def confidence_search(self) -> None:
        return None


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with a tiny task; its files are exported in earnest."""
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.update(
        task="classification",
        model={"name": "m", "fields": {}},
        classes=["r", "g", "b"],
        preprocessing=Preprocessing(image_size=(6, 4)).to_dict(),
    )
    run.weights.write_bytes(b"weights")
    monkeypatch.setattr("vitrail.runs.export.load_task", lambda _: Mean())
    monkeypatch.setattr("vitrail.runs.export.load_run_data", lambda _: SimpleNamespace(held_out=None))
    monkeypatch.setattr("vitrail.runs.export.calibration_images", lambda *_: torch.randn(3, 3, 6, 4))
    return run


def test_files_of_the_runs_own_weights_are_not_stale(run: Run) -> None:
    for record in export_run(run, formats=("onnx", "openvino")):
        assert record.weights_hash == file_hash(run.weights)
        assert json.loads(Path(f"{record.path}.json").read_text())["record"]["weights_hash"] == record.weights_hash
        assert stale_reason(run, record.path) is None


def test_files_of_other_weights_are_stale_and_say_how_to_make_them(run: Run) -> None:
    records = export_run(run, formats=("onnx", "openvino"))
    run.weights.write_bytes(b"trained again")
    for record in records:
        assert stale_reason(run, record.path) == (
            f"{record.path.name} was made from other weights; "
            f"make it again with: vitrail export {run.folder} --format {record.format}"
        )
    export_run(run, formats=("openvino",))
    assert stale_reason(run, run.exported("openvino")) is None


def test_a_file_that_does_not_tell_its_weights_is_believed(run: Run) -> None:
    """Version 0.1.0 wrote no hash; other programs' files have no record at all."""
    (record,) = export_run(run)
    beside = Path(f"{record.path}.json")
    values = json.loads(beside.read_text())
    del values["record"]["weights_hash"]
    beside.write_text(json.dumps(values))
    run.weights.write_bytes(b"trained again")
    assert stale_reason(run, record.path) is None
    beside.unlink()
    assert stale_reason(run, record.path) is None
    assert stale_reason(run, run.exported("litert")) is None


def test_a_stale_file_is_a_row_with_its_reason_and_is_not_measured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    export_run(run)
    run.weights.write_bytes(b"trained again")
    monkeypatch.setattr("vitrail.bench.side_by_side.open_session", None)
    quick = BenchConfig(min_runs=1, min_seconds=0, warmup_runs=1, memory=True, runtimes=("onnxruntime",))
    stale = bench_run(run, quick)[0]
    assert stale.failure is not None
    assert stale.failure.startswith("model.onnx was made from other weights; make it again with: vitrail export ")
    assert (stale.latency_ms_median, stale.peak_memory_mb) == (None, None)
