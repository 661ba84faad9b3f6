from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from vitrail.bench import (
    BenchConfig,
    BenchResult,
    Candidate,
    bench,
    environment,
    measure_memory,
    side_by_side,
)
from vitrail.bench.conditions import Conditions
from vitrail.bench.memory import Memory, forget_peak
from vitrail.bench.protocol import Timings
from vitrail.bench.side_by_side import _with_ratios, _with_timings
from vitrail.cli.bench import show_bench
from vitrail.cli.display import Output, display
from vitrail.core.errors import BenchError, ConfigError, UnknownNameError

QUICK = {"min_runs": 3, "min_seconds": 0, "warmup_runs": 1, "warmup_seconds": 0}


class Net(nn.Module):
    """What the ONNX file of these tests computes."""

    def forward(self, x):
        return x.mean((2, 3)) @ torch.arange(9.0).view(3, 3)


def test_rows_have_figures_and_ratios(onnx_file):
    candidates = [
        Candidate(runtime="onnxruntime", variant="float", source=onnx_file, file=onnx_file),
        Candidate(runtime="torch", variant="float", source=Net()),
    ]
    ort, eager = bench(candidates, BenchConfig(**QUICK, memory=False, batch_size=(2,)), (3, 8, 6))
    assert (ort.name, eager.name) == ("onnxruntime float", "torch float")
    assert eager.latency_ratio == eager.cpu_ratio == 1.0  # the baseline, although it is not the first
    assert ort.latency_ratio == pytest.approx(ort.latency_ms_median / eager.latency_ms_median)
    assert 0 < ort.latency_ms_min <= ort.latency_ms_median <= ort.latency_ms_p90 <= ort.latency_ms_p99
    assert 0 < ort.cpu_ms_p10 <= ort.cpu_ms_median
    assert ort.cpu_ratio == pytest.approx(ort.cpu_ms_p10 / eager.cpu_ms_p10)
    assert ort.load_ms > 0
    assert (ort.num_runs, ort.batch_size, ort.image_size, ort.threads) == (3, 2, (8, 6), 1)
    assert (ort.file, ort.size_bytes) == ("model.onnx", onnx_file.stat().st_size)
    assert ort.peak_memory_mb is None
    assert ort.failure is None


def test_what_others_lengthen_does_not_move_the_ratio():
    """Two candidates, one of which others disturbed in most of its runs: a median would say 2 instead of 1."""
    row = BenchResult(name="torch float", runtime="torch", variant="float")
    quiet = _with_timings(row, Timings(wall=(1.0,) * 10, cpu=(1.0,) * 10), Conditions())
    busy = Timings(wall=(2.0,) * 6 + (1.0,) * 4, cpu=(2.0,) * 6 + (1.0,) * 4)
    busy_row = _with_timings(replace(row, name="openvino float", runtime="openvino"), busy, Conditions())
    candidates = [Candidate(runtime=r, variant="float", source=Net()) for r in ("torch", "openvino")]
    other = _with_ratios(list(zip(candidates, [quiet, busy_row], strict=True)), "")[1]
    assert (other.cpu_ms_median, other.cpu_ms_p10) == (2000, 1000)
    assert (other.cpu_ratio, other.latency_ratio) == (1, 2)


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
    assert small.peak_mb is not None
    assert large.peak_mb is not None
    assert 20 < small.peak_mb < 300
    assert small.peak_mb + 150 < large.peak_mb < small.peak_mb + 400  # the images alone are 192 MB


def test_memory_of_a_pytorch_that_no_device_needs_is_not_that_of_a_file(onnx_file, tmp_path, monkeypatch):
    """A Python binding may import it; here 300 MB that are held, and that were freed again, stand for it."""
    known = "sys.modules['torch'] = type(sys)('torch'); sys.modules['torch'].held = bytearray(b'1' * 200_000_000)"
    (tmp_path / "sitecustomize.py").write_text(f"import sys; {known}; freed = bytearray(b'1' * 100_000_000); del freed")
    alone = measure_memory(onnx_file, "onnxruntime", 1, (1, 3, 8, 8))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    beside = measure_memory(onnx_file, "onnxruntime", 1, (1, 3, 8, 8))
    assert alone.peak_mb is not None
    assert beside.peak_mb is None
    if not forget_peak():
        pytest.skip("only Linux tells a peak from an earlier one")
    assert alone.file_mb is not None
    assert beside.file_mb is not None
    assert 0 < alone.file_mb < alone.peak_mb
    assert abs(beside.file_mb - alone.file_mb) < 30


def test_a_row_without_a_peak_says_why(onnx_file, monkeypatch, capsys):
    monkeypatch.setattr(side_by_side, "measure_memory", lambda *_: Memory(peak_mb=None, file_mb=12.3))
    candidate = Candidate(runtime="onnxruntime", variant="float", source=onnx_file)
    (row,) = bench([candidate], BenchConfig(**QUICK | {"memory": True}), (3, 4, 4))
    assert (row.peak_memory_mb, row.file_memory_mb) == (None, 12.3)
    with display(Output()) as shown:
        show_bench(shown, [row])
    printed = capsys.readouterr().out
    assert "12 MB" in printed
    assert "onnxruntime float: the Python binding imports PyTorch" in " ".join(printed.split())


def test_memory_of_a_broken_file_is_an_error(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(BenchError, match="memory of onnxruntime failed"):
        measure_memory(tmp_path / "model.onnx", "onnxruntime", 1, (1, 3, 4, 4))


def test_every_number_of_threads_and_batch_size_is_a_row_with_a_baseline_of_its_own(onnx_file):
    candidates = [
        Candidate(runtime="onnxruntime", variant="float", source=onnx_file, file=onnx_file),
        Candidate(runtime="torch", variant="float", source=Net(), image_shape=(3, 6, 6)),
    ]
    config = BenchConfig(**QUICK, memory=False, threads=(1, 2), batch_size=(1, 4), baseline="onnxruntime float")
    rows = bench(candidates, config, (3, 8, 8))
    assert [(r.runtime, r.threads, r.batch_size) for r in rows] == [
        (runtime, threads, size) for runtime in ("onnxruntime", "torch") for threads in (1, 2) for size in (1, 4)
    ]
    ort, eager = rows[:4], rows[4:]
    assert {r.image_size for r in ort} == {(8, 8)}
    assert {r.image_size for r in eager} == {(6, 6)}
    for base, row in zip(ort, eager, strict=True):
        assert base.latency_ratio == 1.0
        assert row.baseline == "onnxruntime float"
        assert row.latency_ratio == pytest.approx(row.latency_ms_median / base.latency_ms_median)
        assert row.images_per_second == pytest.approx(row.batch_size / row.latency_ms_median * 1000)


def test_a_baseline_must_take_part(onnx_file):
    one = Candidate(runtime="onnxruntime", variant="float", source=onnx_file)
    with pytest.raises(UnknownNameError, match="baseline 'torch float' is no candidate; there are onnxruntime float"):
        bench([one], BenchConfig(**QUICK, baseline="torch float"), (3, 4, 4))
    with pytest.raises(BenchError, match="no image_shape"):
        bench([one], BenchConfig(**QUICK))


def test_no_ratio_to_a_named_baseline_that_failed(onnx_file, tmp_path):
    missing = tmp_path / "model.int8.onnx"
    candidates = [
        Candidate(runtime="onnxruntime", variant="int8", source=missing),
        Candidate(runtime="onnxruntime", variant="float", source=onnx_file),
    ]
    rows = bench(candidates, BenchConfig(**QUICK, memory=False, baseline="onnxruntime int8"), (3, 4, 4))
    assert [row.latency_ratio for row in rows] == [None, None]


def test_an_estimate_of_energy_is_called_one(onnx_file):
    one = Candidate(runtime="onnxruntime", variant="float", source=onnx_file)
    # two windows that differ by a tenth, as on a busy machine, would leave an interval that reaches zero
    config = BenchConfig(
        **QUICK, memory=False, energy="estimate:8", energy_rounds=8, energy_seconds=0.03, batch_size=(2,)
    )
    (row,) = bench([one], config, (3, 64, 64))
    assert row.energy.source == "estimated"
    assert len(row.energy.windows) == 8
    images = sum(window.num_images for window in row.energy.windows)
    seconds = sum(window.end - window.start for window in row.energy.windows)
    assert images % 2 == 0
    assert 0 < row.energy.energy_mj <= 2 * 8 * seconds / images * 1e3  # one core at 8 W, and what else the process does
    assert "estimated" in row.energy.text()


def test_a_meter_that_is_not_there_stops_before_anything_is_loaded(onnx_file, monkeypatch):
    one = Candidate(runtime="onnxruntime", variant="float", source=onnx_file)
    monkeypatch.setattr("vitrail.bench.side_by_side.open_session", None)
    with pytest.raises(ConfigError, match="is no meter"):
        bench([one], BenchConfig(**QUICK, energy="wattmeter"), (3, 4, 4))
    with pytest.raises(BenchError, match="adb is not installed"):
        monkeypatch.setenv("PATH", "")
        bench([one], BenchConfig(**QUICK, energy="battery"), (3, 4, 4))


def test_a_phones_battery_says_nothing_of_this_machine(onnx_file, monkeypatch):
    phone = SimpleNamespace(source="battery", place="pixel:5555", close=lambda: None)
    monkeypatch.setattr("vitrail.bench.energy_rows.open_meter", lambda _: phone)
    monkeypatch.delenv("ANDROID_ROOT", raising=False)
    one = Candidate(runtime="onnxruntime", variant="float", source=onnx_file)
    with pytest.raises(BenchError, match="measures pixel:5555, and the candidates run on this machine"):
        bench([one], BenchConfig(**QUICK, energy="battery"), (3, 4, 4))


def test_integers_on_a_processor_without_vnni_are_warned_of():
    timings = Timings(wall=(1.0,) * 60, cpu=(1.0,) * 60)
    for features, variant, runtime, warned in (
        (["avx2", "avx512f"], "int8", "onnxruntime", True),
        (["avx2"], "w4a8", "onnxruntime", True),
        (["avx2", "avx512_vnni"], "int8", "onnxruntime", False),
        (["avx2"], "float", "onnxruntime", False),
        (["avx2"], "int8", "openvino", False),
        ([], "int8", "onnxruntime", False),
    ):
        row = BenchResult(name="x", runtime=runtime, variant=variant, environment={"cpu_features": features})
        warnings = _with_timings(row, timings, Conditions()).warnings
        assert any("no VNNI" in text and "--target-cpu avx2" in text for text in warnings) == warned


def test_environment_tells_the_machine_but_not_whose():
    place = environment()
    assert place["cores"] >= 1
    assert place["memory_gb"] > 0
    assert {"torch", "onnxruntime", "openvino"} <= set(place["versions"])
    assert place["date"].endswith("+00:00")
    assert place["allocator"]
    text = json.dumps(place)
    assert f'"{platform.node()}"' not in text
    assert "/" not in text


def test_environment_tells_the_allocator_and_what_sets_threads(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libjemalloc.so.2:/opt/other.so")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MALLOC_CONF", "prof_prefix:/home/somebody")
    monkeypatch.setenv("HOME_OF", "x")
    place = environment()
    assert place["allocator"] == "libjemalloc.so.2"
    assert place["settings"]["OMP_NUM_THREADS"] == "3"
    assert not {"MALLOC_CONF", "HOME_OF"} & set(place["settings"])
