from __future__ import annotations

import hashlib

import numpy as np
import onnxruntime
import pytest

from vitrail.core.errors import BenchError
from vitrail.serve.browser.offer import read_offers


def test_every_file_of_every_run_is_offered(runs, offers):
    assert [one.label for one in offers] == ["first float", "first int8", "second float", "second int8"]
    for one in offers:
        assert one.id == hashlib.sha256(one.path.read_bytes()).hexdigest()[:16]
        assert one.size_bytes == one.path.stat().st_size
        assert one.is_unchanged
    assert [one.top1 for one in offers] == [0.91, 0.88, 0.91, 0.88]


def test_the_answer_is_that_of_onnx_runtime(runs):
    for one in read_offers(runs, batch_size=3, seed=1):
        images = np.frombuffer(one.images, "<f4").reshape(one.shape)
        assert one.shape == (3, 3, 8, 8)
        (wanted,) = onnxruntime.InferenceSession(one.path).run(None, {"image": images})
        np.testing.assert_allclose(np.frombuffer(one.answer, "<f4"), wanted.ravel(), rtol=1e-5)


def test_without_an_evaluation_there_is_no_accuracy(runs):
    runs[0].evaluation.unlink()
    assert [one.top1 for one in read_offers(runs, 1, 0)] == [None, None, 0.91, 0.88]


def test_a_float_file_has_the_accuracy_of_the_weights_that_it_was_verified_against(runs):
    runs[0].evaluation.write_text('{"reports": {"torch-float": {"top1": 0.9}}}')
    assert [one.top1 for one in read_offers(runs[:1], 1, 0)] == [0.9, None]


def test_a_run_without_files_says_how_to_make_them(runs):
    for variant in ("float", "int8"):
        runs[1].onnx(variant).unlink()
    with pytest.raises(BenchError, match=r"no ONNX file; make it with: vitrail export .*second"):
        read_offers(runs, 1, 0)


def test_the_same_file_twice_is_refused(runs):
    runs[1].onnx("float").write_bytes(runs[0].onnx("float").read_bytes())
    with pytest.raises(BenchError, match="same contents"):
        read_offers(runs, 1, 0)


def test_a_broken_file_is_not_offered(runs):
    runs[0].onnx("int8").write_bytes(b"no model")
    with pytest.raises(BenchError, match=r"model\.int8\.onnx"):
        read_offers(runs, 1, 0)


def test_runs_of_the_same_name_are_told_apart(runs, tmp_path):
    other = tmp_path / "elsewhere" / "first"
    other.parent.mkdir()
    runs[1].folder.rename(other)
    labels = [one.label for one in read_offers([runs[0], type(runs[0])(other)], 1, 0)]
    assert len(set(labels)) == 4
