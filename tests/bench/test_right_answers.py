"""A candidate that gives other answers than its model in another runtime is a failure, whichever of the two it is."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.bench import BenchConfig, Candidate, bench
from vitrail.bench.right_answers import Answer, wrong_answers

QUICK = {"min_runs": 3, "min_seconds": 0, "warmup_runs": 1, "warmup_seconds": 0, "memory": False}
EXACT = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
CODES = EXACT + 0.02 * np.random.default_rng(1).normal(size=(4, 10)).astype(np.float32)


def answers(**outputs: np.ndarray) -> dict[str, Answer]:
    """``runtime_variant`` -> its answer."""
    found = {}
    for name, values in outputs.items():
        runtime, _, variant = name.partition("_")
        found[name] = Answer(run="", variant=variant, runtime=runtime, shape=(4, 3, 8, 8), outputs=values)
    return found


def test_the_runtime_that_is_far_from_the_float_model_is_the_wrong_one():
    right = answers(torch_float=EXACT, onnxruntime_int8=CODES, openvino_int8=CODES + 0.01)
    assert wrong_answers(right) == {}
    for name in ("onnxruntime_int8", "openvino_int8"):
        (failed,) = (failures := wrong_answers(right | answers(**{name: np.roll(CODES, 1, 1)})))
        assert failed == name
        assert "its answers differ from those of O" in failures[name]
        assert "its time would mislead" in failures[name]


def test_without_the_float_model_the_first_one_counts():
    wrong = wrong_answers(answers(onnxruntime_int8=CODES, openvino_int8=-CODES))
    assert list(wrong) == ["openvino_int8"]
    assert "those of ONNX Runtime by 2 (relative), allowed are 0.1" in wrong["openvino_int8"]


def test_codes_that_are_as_far_from_the_float_model_are_only_other_codes():
    noise = np.random.default_rng(2).normal(size=(2, 4, 10)).astype(np.float32)
    assert wrong_answers(answers(torch_float=EXACT, a_w4=EXACT + noise[0] / 4, b_w4=EXACT + noise[1] / 4)) == {}


@pytest.mark.parametrize("wrong", [EXACT * 1.02, EXACT * np.nan, EXACT * np.inf, EXACT[:, :9]])
def test_float_answers_are_the_same(wrong):
    assert list(wrong_answers(answers(torch_float=EXACT, openvino_float=wrong))) == ["openvino_float"]
    assert wrong_answers(answers(torch_float=EXACT, openvino_float=EXACT * 1.0001)) == {}


def test_other_models_are_not_compared():
    others = answers(torch_float=EXACT) | {
        "b": Answer(run="b", variant="float", runtime="torch", shape=(4, 3, 8, 8), outputs=-EXACT)
    }
    assert wrong_answers(others) == {}


def test_the_order_of_rows_of_a_set_does_not_count():
    rows = np.random.default_rng(3).normal(size=(4, 30, 6)).astype(np.float32)
    both = {
        name: Answer(run="", variant="float", runtime=name, shape=(4, 3, 8, 8), outputs=values, row_parts=parts)
        for name, values, parts in (("torch", rows, ()), ("openvino", rows[:, ::-1].copy(), (4, 2)))
    }
    assert wrong_answers(both) == {}
    both["openvino"].outputs[:, :20] += 3
    assert list(wrong_answers(both)) == ["openvino"]


def test_a_row_with_wrong_answers_is_a_failure_and_is_not_timed(write_onnx, tmp_path):
    import torch

    class Other(torch.nn.Module):
        def forward(self, x):
            return x.amax((2, 3))

    file = write_onnx(tmp_path / "model.onnx")
    candidates = [
        Candidate(runtime="onnxruntime", variant="float", source=file, file=file),
        Candidate(runtime="torch", variant="float", source=Other()),
    ]
    right, wrong = bench(candidates, BenchConfig(**QUICK), (3, 8, 6))
    assert right.failure is None
    assert "its answers differ from those of ONNX Runtime" in wrong.failure
    assert (wrong.latency_ms_median, wrong.num_runs) == (None, 0)
