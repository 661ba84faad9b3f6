"""Packed weights: true sizes, and the same codes in every reader."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vitrail.export.packing import bit_width, pack_weights
from vitrail.runtimes.openvino_core import openvino_core


def model_of(codes: NDArray[np.int8]) -> onnx.ModelProto:
    """x + dequantised codes."""
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["weight"]),
        helper.make_node("Add", ["x", "weight"], ["y"]),
    ]
    constants = [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(np.float32(0.5), "scale")]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [1]), ("y", None))
    ]
    graph = helper.make_graph(nodes, "test", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def codes_of_width(width: int, count: int) -> NDArray[np.int8]:
    half = 1 << width - 1
    codes = np.random.default_rng(0).integers(-half, half, count).astype(np.int8)
    codes[:2] = -half, half - 1
    return codes


@settings(max_examples=60)
@given(
    width=st.integers(2, 8),
    data=st.data(),
    dims=st.lists(st.integers(1, 9), min_size=1, max_size=4).filter(lambda dims: 64 <= np.prod(dims) <= 400),
)
def test_unpacked_codes_are_the_codes(width: int, data: st.DataObject, dims: list[int]) -> None:
    half = 1 << width - 1
    codes = data.draw(arrays.arrays(np.int8, tuple(dims), elements=st.integers(-half, half - 1)))
    model = model_of(codes)
    pack_weights(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (weight,) = session.run(None, {"x": np.zeros((1,), np.float32)})
    assert np.array_equal(weight, codes * np.float32(0.5))


@pytest.mark.parametrize("width", range(2, 9))
def test_a_weight_takes_its_bits_and_little_more(width: int) -> None:
    codes = codes_of_width(width, 20_000)
    assert bit_width(codes) == width
    model = model_of(codes)
    plain = len(model_of(codes[:1]).SerializeToString())
    pack_weights(model)
    assert len(model.SerializeToString()) - plain < 20_000 * width / 8 + 1500
    kinds = {tensor.data_type for tensor in model.graph.initializer if tensor.ByteSize() > 1000}
    expected = {4: TensorProto.INT4, 8: TensorProto.INT8}.get(width, TensorProto.UINT8)
    assert kinds == {expected}


@pytest.mark.parametrize("width", range(2, 9))
def test_openvino_unpacks_the_same_codes(width: int) -> None:
    codes = codes_of_width(width, 20_001)  # does not fill the last byte
    model = model_of(codes)
    pack_weights(model)
    compiled = openvino_core().compile_model(openvino_core().read_model(model.SerializeToString()), "CPU")
    weight = compiled(np.zeros((1,), np.float32))[0]
    assert np.array_equal(weight, codes * np.float32(0.5))


def test_small_weights_are_left_alone() -> None:
    model = model_of(np.zeros(10, np.int8))
    before = model.SerializeToString()
    pack_weights(model)
    assert model.SerializeToString() == before
