from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from vitrail.core.errors import BenchError, UnknownNameError
from vitrail.runtimes import USUAL_RUNTIMES, Session, open_session, predictor

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 4, 5), dtype=np.float32)


class MeanThenMatrix(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) @ torch.arange(9.0).reshape(3, 3)


@pytest.mark.parametrize(
    "runtime", [pytest.param(one, marks=[pytest.mark.slow] * (one == "torch-compile")) for one in USUAL_RUNTIMES]
)
def test_all_runtimes_give_the_same_answer(runtime, onnx_file):
    source = MeanThenMatrix() if runtime.startswith("torch") else onnx_file
    session = open_session(source, runtime, threads=1)
    answer = session(IMAGES)
    np.testing.assert_allclose(answer, IMAGES.mean((2, 3)) @ np.arange(9.0).reshape(3, 3), rtol=1e-5, atol=1e-5)
    assert (session.runtime, session.threads) == (runtime, 1)
    assert session.version[0].isdigit()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_answers_do_not_change_under_the_caller(runtime, onnx_file):
    session = open_session(onnx_file, runtime)
    first = session(IMAGES)
    kept = first.copy()
    session(-IMAGES)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_shape_that_is_known_is_fixed(runtime, onnx_file):
    free, fixed = open_session(onnx_file, runtime), open_session(onnx_file, runtime, shape=IMAGES.shape)
    assert (free.options["shape"], fixed.options["shape"]) == ("free", "fixed")
    np.testing.assert_allclose(fixed(IMAGES), free(IMAGES), rtol=1e-6)
    other = np.concatenate([IMAGES, IMAGES])
    assert free(other).shape == (4, 3)
    with pytest.raises(Exception, match=r"(?i)shape|dimension"):
        fixed(other)


def test_openvino_computes_in_float32_and_says_so(onnx_file):
    assert open_session(onnx_file, "openvino").options["INFERENCE_PRECISION_HINT"] == "f32"


def test_threads_are_held_for_pytorch():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return x

    before = torch.get_num_threads()
    try:
        one, two = open_session(Spy(), "torch", 1), open_session(Spy(), "torch", 2)
        for session in (two, one, two):
            session(IMAGES)
    finally:
        torch.set_num_threads(before)
    assert seen == [2, 1, 2]


def test_modules_are_measured_in_eval_mode():
    session = open_session(nn.Dropout(1.0), "torch")
    np.testing.assert_array_equal(session(IMAGES), IMAGES)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_a_file_that_is_no_model(runtime, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(BenchError, match=r"model\.onnx"):
        open_session(path, runtime)


def test_names_and_numbers_are_checked(tmp_path, write_onnx):
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        open_session(write_onnx(tmp_path / "m.onnx"), "onnxruntine")
    with pytest.raises(BenchError, match="threads=0"):
        open_session(tmp_path / "m.onnx", "onnxruntime", threads=0)
    with pytest.raises(BenchError, match="vitrail export"):
        open_session(tmp_path / "other.onnx", "onnxruntime")


@pytest.mark.parametrize(("runtime", "foreign"), [("onnxruntime", "torch openvino"), ("openvino", "torch onnxruntime")])
def test_a_runtime_brings_in_no_other(runtime, foreign, onnx_file):
    code = (
        "import sys; from vitrail.runtimes import open_session; open_session(sys.argv[1], sys.argv[2]); "
        "print([m for m in sys.argv[3].split() if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(onnx_file), runtime, foreign]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_predictor_takes_any_batch_whatever_the_file_takes():
    sizes = []

    def run(images):
        sizes.append(len(images))
        return images.mean((2, 3))

    images = torch.from_numpy(IMAGES)
    for runtime, wanted in (("onnxruntime", [2]), ("litert", [1, 1])):
        session = Session(runtime=runtime, version="1", threads=1, run=run)
        torch.testing.assert_close(predictor(session)(images), images.mean((2, 3)))
        assert sizes == wanted
        sizes.clear()
    with pytest.raises(BenchError, match="LiteRT takes one image at a time, not 2; set batch_size to 1"):
        session(IMAGES)
