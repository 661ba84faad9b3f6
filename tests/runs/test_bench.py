"""What a run has, measured file by file."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitrail.bench import BenchConfig, BenchResult, Energy, append_results, latest_results, read_results
from vitrail.bench.energy import EnergyWindow
from vitrail.core.errors import BenchError, UnknownNameError
from vitrail.runs.bench import attach_energy, bench_run, bench_runs, run_candidates
from vitrail.runs.run import Run

QUICK = {"min_runs": 3, "min_seconds": 0, "warmup_runs": 1, "warmup_seconds": 0}


def describe(run: Run, height: int = 6, width: int = 4) -> None:
    size = {"image_size": [height, width]}
    run.update(task="classification", model={"name": "m", "fields": {}}, preprocessing=size)


@pytest.fixture
def run(tmp_path, write_onnx) -> Run:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    describe(run)
    torch.save({}, run.weights)
    write_onnx(run.onnx("float"))
    return run


def test_a_run_is_measured_file_by_file(run):
    config = BenchConfig(**QUICK, runtimes=("onnxruntime", "openvino"))
    results = bench_run(run, config)
    assert [r.name for r in results] == ["onnxruntime float", "onnxruntime int8", "openvino float", "openvino int8"]
    good, missing = results[0::2], results[1::2]
    assert all(r.image_size == (6, 4) and r.peak_memory_mb > 20 and r.failure is None for r in good)
    assert all("model.int8.onnx does not exist" in r.failure for r in missing)
    assert read_results(run.bench_rows) == results
    bench_run(run, BenchConfig(**QUICK, runtimes=("onnxruntime",), memory=False))
    assert len(read_results(run.bench_rows)) == 6


def test_every_file_meets_every_runtime_that_takes_it(run, write_onnx):
    write_onnx(run.onnx("w4a8"))
    assert run.variants() == ["float", "int8", "w4a8"]
    names = [candidate.name for candidate in run_candidates(run, BenchConfig().runtimes)]
    assert names == [
        "torch float",
        "torch-compile float",
        *(f"{runtime} {variant}" for runtime in ("onnxruntime", "openvino") for variant in ("float", "int8", "w4a8")),
    ]


def test_several_runs_take_turns_and_keep_their_own_rows(run, tmp_path, write_onnx):
    other = Run(tmp_path / "other")
    other.folder.mkdir()
    describe(other, 8, 8)
    torch.save({}, other.weights)
    write_onnx(other.onnx("float"))
    config = BenchConfig(**QUICK, runtimes=("onnxruntime",), memory=False, baseline="other/onnxruntime float")
    results = bench_runs([run, other], config)
    assert [r.run for r in results] == ["run", "run", "other", "other"]
    mine, others = read_results(run.bench_rows), read_results(other.bench_rows)
    assert [*mine, *others] == results
    assert (mine[0].image_size, others[0].image_size) == ((6, 4), (8, 8))
    assert others[0].latency_ratio == 1.0
    assert mine[0].latency_ratio == pytest.approx(mine[0].latency_ms_median / others[0].latency_ms_median)
    assert mine[0].file_hash == hashlib.sha256(run.onnx("float").read_bytes()).hexdigest()[:16]
    with pytest.raises(UnknownNameError, match="have the same name"):
        bench_runs([run, Run(run.folder)], config)


def test_a_trace_that_is_not_there_yet_costs_the_energy_alone(run, tmp_path):
    quick = {"energy_rounds": 2, "energy_seconds": 0.02, "memory": False, "runtimes": ("onnxruntime",)}
    (good, missing) = bench_run(run, BenchConfig(**QUICK, **quick, energy=f"csv:{tmp_path / 'trace.csv'}"))
    assert good.latency_ms_median > 0
    assert good.energy.energy_mj is None
    assert "trace.csv cannot be read" in good.energy.failure
    assert str(tmp_path) not in good.energy.failure
    assert len(good.energy.windows) == 2
    assert missing.energy is None


def test_a_trace_is_attached_to_the_newest_measurement(run, tmp_path):
    """3 W idling and 7 W at work: 4 W for 2 s and 100 images are 80 mJ; an older measurement is left alone."""

    def measured(start: float, date: str) -> BenchResult:
        windows = tuple(EnergyWindow(s + 3, s + 5, 100, s, s + 2) for s in (start, start + 6, start + 12))
        energy = Energy(source="external-csv", windows=windows, failure="no trace yet")
        place = {"date": date}
        return BenchResult(name="torch float", runtime="torch", variant="float", energy=energy, environment=place)

    old = replace(measured(1.79e9, "2026-01-01"), name="openvino float", runtime="openvino")
    append_results(run.bench_rows, [old, measured(1.8e9, "2026-02-01")])
    times = np.arange(1.8e9 - 1, 1.8e9 + 20, 0.01)
    busy = ((times - 1.8e9) % 6 >= 2.5) & ((times - 1.8e9) % 6 < 5.5)
    rows = "".join(f"{t:.3f},{3 + 4 * b}\n" for t, b in zip(times, busy, strict=True))
    (trace := tmp_path / "trace.csv").write_text("Time (s),Power (W)\n" + rows)
    (row,) = attach_energy([run], f"csv:{trace}")
    assert row.name == "torch float"
    assert row.energy.energy_mj == pytest.approx(80.0, rel=1e-3)
    assert (row.energy.source, row.energy.failure) == ("external-csv", None)
    assert latest_results(run.bench_rows) == [old, row]
    with pytest.raises(BenchError, match="only the trace of an external meter"):
        attach_energy([run], "estimate:5")


def test_they_take_the_files_of_a_run_when_asked(tmp_path):
    run = Run(tmp_path)
    describe(run)
    candidates = run_candidates(run, ("executorch", "litert", "aoti"))
    assert [(c.name, c.source.name, c.image_shape) for c in candidates] == [
        ("executorch float", "model.pte", (3, 6, 4)),
        ("litert float", "model.tflite", (3, 6, 4)),
        ("aoti float", "model.aoti.pt2", (3, 6, 4)),
    ]
