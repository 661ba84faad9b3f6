"""Runtimes of phones and of C++ programs: they need extras or a compiler, and take files of their own formats."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from export.installed import missing, where_installed
from torch import nn

from vitrail.bench import BenchConfig, Candidate, bench
from vitrail.core.errors import BenchError
from vitrail.core.types import Preprocessing
from vitrail.export import export_model
from vitrail.runs.run import Run
from vitrail.runtimes import open_session

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 4, 5), dtype=np.float32)
ANSWER = IMAGE.mean((2, 3)) @ np.arange(9.0).reshape(3, 3)

pytestmark = pytest.mark.filterwarnings("ignore")  # of the converters


class MeanThenMatrix(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) @ torch.arange(9.0).reshape(3, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("run"))


def exported(folder: Run, format: str) -> Path:
    path = folder.exported(format)
    if not path.exists():
        about = {"preprocessing": Preprocessing(image_size=(4, 5)), "classes": ["a", "b", "c"]}
        images = torch.from_numpy(IMAGE).repeat(2, 1, 1, 1)
        export_model(MeanThenMatrix(), path, format=format, images=images, **about)
    return path


@pytest.mark.parametrize(
    "runtime", [where_installed("executorch"), where_installed("litert"), where_installed("aoti", slow=True)]
)
def test_a_file_is_run_and_measured(runtime, folder):
    path = exported(folder, runtime)
    more = 1 if runtime == "executorch" else 2  # it has one pool of threads for all
    sessions = [open_session(path, runtime, threads=threads) for threads in (1, more)]
    for session in [*sessions, sessions[0]]:
        np.testing.assert_allclose(session(IMAGE), ANSWER, rtol=1e-5, atol=1e-5)
    kept = sessions[0](IMAGE)
    sessions[0](-IMAGE)
    np.testing.assert_allclose(kept, ANSWER, rtol=1e-5, atol=1e-5)  # answers do not change under the caller
    assert (sessions[1].runtime, sessions[1].threads) == (runtime, more)
    assert sessions[0].version[0].isdigit()
    quick = BenchConfig(min_runs=2, min_seconds=0, warmup_runs=1, warmup_seconds=0)
    (row,) = bench([Candidate(runtime=runtime, variant="float", source=path, file=path)], quick, (3, 4, 5))
    assert row.failure is None
    assert (row.peak_memory_mb is None) == (runtime == "executorch"), "its binding imports PyTorch"
    assert row.file_memory_mb is not None
    assert row.file_memory_mb < 100
    assert row.latency_ms_median is not None


@pytest.mark.parametrize("runtime", [where_installed("executorch"), where_installed("litert")])
def test_one_image_at_a_time(runtime, folder):
    session = open_session(exported(folder, runtime), runtime)
    with pytest.raises(BenchError, match="takes one image at a time, not 2; set batch_size to 1"):
        session(np.concatenate([IMAGE, IMAGE]))


@pytest.mark.parametrize("runtime", [where_installed("executorch"), where_installed("litert"), where_installed("aoti")])
def test_a_file_that_is_no_model(runtime, tmp_path):
    path = Run(tmp_path).exported(runtime)
    path.write_bytes(b"not a model")
    with pytest.raises(BenchError, match=f"cannot load {path.name}"):
        open_session(path, runtime)


@pytest.mark.skipif(bool(missing("executorch")), reason=missing("executorch"))
def test_executorch_has_one_pool_of_threads_for_all_that_is_loaded(folder):
    """Resetting it under a loaded program ends the process, so that another number of threads has to wait."""
    from executorch.extension.pybindings import portable_lib

    file = exported(folder, "executorch")
    one, other = open_session(file, "executorch", 1), open_session(file, "executorch", 1)
    assert np.array_equal(one(IMAGE), other(IMAGE))
    with pytest.raises(BenchError, match="one pool of threads a process, and 1 are in use"):
        open_session(file, "executorch", 2)
    assert portable_lib._threadpool_get_thread_count() == 1
    before = one(IMAGE)
    del one, other
    two = open_session(file, "executorch", 2)
    assert portable_lib._threadpool_get_thread_count() == 2
    assert np.allclose(two(IMAGE), before, atol=1e-5)


def test_openvino_takes_its_own_format(folder):
    np.testing.assert_allclose(
        open_session(exported(folder, "openvino"), "openvino")(IMAGE), ANSWER, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("runtime", ["executorch", "litert"])
def test_a_missing_extra_is_a_row_with_the_command(runtime, tmp_path, monkeypatch):
    library = {"executorch": "executorch.runtime", "litert": "ai_edge_litert.interpreter"}[runtime]
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"vitrail.runtimes.{runtime}_cpu", raising=False)
    with pytest.raises(BenchError, match=rf"install it with: pip install 'vitrail\[{runtime}\]', or leave it out"):
        open_session(tmp_path / "model.pte", runtime)


def test_a_missing_file_is_told_with_the_format_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setattr("vitrail.runtimes.session.import_runtime", lambda _: None)
    with pytest.raises(BenchError, match=rf"make it with: vitrail export {tmp_path} --format executorch"):
        open_session(tmp_path / "model.pte", "executorch")
