from __future__ import annotations

import json
import platform

import numpy as np
import pytest
import torch
from torch import nn

from vitrail.bench import BenchConfig, Candidate, bench, bench_run, environment, measure_memory, read_results
from vitrail.bench.candidates import onnx_variants, run_candidates
from vitrail.core.errors import BenchError, UnknownNameError
from vitrail.core.run import Run

QUICK = {"min_runs": 3, "min_seconds": 0, "warmup_runs": 1, "warmup_seconds": 0}


class Net(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def test_rows_have_figures_and_ratios(onnx_file):
    candidates = [
        Candidate(runtime="onnxruntime", variant="float", source=onnx_file, file=onnx_file),
        Candidate(runtime="torch", variant="float", source=Net()),
    ]
    ort, eager = bench(candidates, BenchConfig(**QUICK, memory=False, batch_size=2), (3, 8, 6))
    assert (ort.name, eager.name) == ("onnxruntime float", "torch float")
    assert eager.latency_ratio == eager.cpu_ratio == 1.0  # the baseline, although it is not the first
    assert ort.latency_ratio == pytest.approx(ort.latency_ms_median / eager.latency_ms_median)
    assert 0 < ort.latency_ms_min <= ort.latency_ms_median <= ort.latency_ms_p90 <= ort.latency_ms_p99
    assert ort.cpu_ms_median > 0
    assert ort.load_ms > 0
    assert (ort.num_runs, ort.batch_size, ort.image_size, ort.threads) == (3, 2, (8, 6), 1)
    assert (ort.file, ort.size_bytes) == ("model.onnx", onnx_file.stat().st_size)
    assert ort.peak_memory_mb is None
    assert ort.failure is None


def test_a_failing_candidate_is_a_row_with_its_reason(onnx_file, tmp_path):
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("this model cannot be run")

    missing = tmp_path / "model.int8.onnx"
    candidates = [
        Candidate(runtime="torch", variant="float", source=Broken()),
        Candidate(runtime="onnxruntime", variant="int8", source=missing, file=missing),
        Candidate(runtime="onnxruntime", variant="float", source=onnx_file, file=onnx_file),
    ]
    broken, absent, good = bench(candidates, BenchConfig(**QUICK, memory=False), (3, 4, 4))
    assert broken.failure == "this model cannot be run"
    assert broken.latency_ms_median is None
    assert "model.int8.onnx does not exist" in absent.failure
    assert str(tmp_path) not in absent.failure
    assert good.failure is None
    assert good.latency_ratio == 1.0  # the first that has a time stands in for the missing baseline


def test_names_must_differ(onnx_file):
    one = Candidate(runtime="onnxruntime", variant="float", source=onnx_file)
    with pytest.raises(UnknownNameError, match="names of their own"):
        bench([one, one], BenchConfig(**QUICK), (3, 4, 4))


def test_peak_memory_is_that_of_a_fresh_process(onnx_file):
    small = measure_memory(onnx_file, "onnxruntime", 1, (1, 3, 8, 8))
    ballast = np.ones(60_000_000)  # what this process holds must not show
    large = measure_memory(onnx_file, "onnxruntime", 1, (1, 3, 4000, 4000))
    assert ballast.nbytes == 480e6
    assert 20 < small < 300
    assert small + 150 < large < small + 400  # the images alone are 192 MB


def test_memory_of_a_broken_file_is_an_error(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(BenchError, match="memory of onnxruntime failed"):
        measure_memory(tmp_path / "model.onnx", "onnxruntime", 1, (1, 3, 4, 4))


@pytest.fixture
def run(tmp_path, write_onnx) -> Run:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.description.write_text(json.dumps({"model": {"name": "m"}, "preprocessing": {"image_size": [6, 4]}}))
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
    assert read_results(run.bench) == results
    bench_run(run, BenchConfig(**QUICK, runtimes=("onnxruntime",), memory=False))
    assert len(read_results(run.bench)) == 6


def test_every_file_meets_every_runtime_that_takes_it(run, write_onnx):
    write_onnx(run.onnx("w4a8"))
    assert onnx_variants(run) == ["float", "int8", "w4a8"]
    names = [candidate.name for candidate in run_candidates(run, BenchConfig())]
    assert names == [
        "torch float",
        "torch-compile float",
        *(f"{runtime} {variant}" for runtime in ("onnxruntime", "openvino") for variant in ("float", "int8", "w4a8")),
    ]


def test_environment_tells_the_machine_but_not_whose():
    place = environment()
    assert place["cores"] >= 1
    assert place["memory_gb"] > 0
    assert {"torch", "onnxruntime", "openvino"} <= set(place["versions"])
    assert place["date"].endswith("+00:00")
    text = json.dumps(place)
    assert f'"{platform.node()}"' not in text
    assert "/" not in text
