from __future__ import annotations

import hashlib
import json

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
    assert [one.quality.value for one in offers] == [91, 88, 91, 88]
    assert {one.quality.title for one in offers} == {"top-1 (%)"}


def test_the_answer_is_that_of_onnx_runtime(runs):
    for one in read_offers(runs, batch_size=3, seed=1):
        images = np.frombuffer(one.images, "<f4").reshape(one.shape)
        assert one.shape == (3, 3, 8, 8)
        (wanted,) = onnxruntime.InferenceSession(one.path).run(None, {"image": images})
        np.testing.assert_allclose(np.frombuffer(one.answer, "<f4"), wanted.ravel(), rtol=1e-5)


def test_without_an_evaluation_there_is_no_accuracy(runs):
    runs[0].evaluation.unlink()
    assert [one.quality is None for one in read_offers(runs, 1, 0)] == [True, True, False, False]


def test_a_float_file_has_the_accuracy_of_the_weights_that_it_was_verified_against(runs):
    values = json.loads(runs[0].evaluation.read_text())
    runs[0].evaluation.write_text(json.dumps(values | {"reports": {"torch-float": {"top1": 0.9}}}))
    float_, int8 = read_offers(runs[:1], 1, 0)
    assert float_.quality.value == 90
    assert int8.quality is None


def test_the_main_score_of_any_task_counts(runs):
    scores = [{"name": "error", "title": "error", "percent": False, "higher_is_better": False}]
    scores += [{"name": "top1", "title": "top-1", "percent": True, "higher_is_better": True}]
    reports = {"torch-float": {"error": 3.5, "top1": 0.9}}
    runs[0].evaluation.write_text(json.dumps({"scores": scores, "reports": reports}))
    found = read_offers(runs[:1], 1, 0)[0].quality
    assert (found.title, found.value, found.higher_is_better) == ("error", 3.5, False)


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


def test_a_file_of_other_weights_is_not_offered(runs):
    path = runs[0].onnx("int8")
    runs[0].weights.write_bytes(b"trained again")
    path.with_name(path.name + ".json").write_text('{"record": {"format": "onnx", "weights_hash": "of before"}}')
    with pytest.raises(BenchError, match=r"int8\.onnx was made from other weights; make it again with: vitrail export"):
        read_offers(runs, 1, 0)
