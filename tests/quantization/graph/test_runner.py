"""The runner computes what the graph does, and its hooks see and change every operation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from vitrail.quantization import QuantizationConfig, quantize
from vitrail.quantization.graph.ops import QuantizedOp, find_ops
from vitrail.quantization.graph.prepare import prepared_graph
from vitrail.quantization.graph.runner import GraphRunner, fake_quantized, run_side_by_side


@pytest.fixture(scope="module")
def graph_module(edgevit: nn.Module, images: Tensor) -> fx.GraphModule:
    return prepared_graph(edgevit, images)


def test_it_computes_what_the_graph_does_and_hooks_see_every_operation(
    graph_module: fx.GraphModule, images: Tensor
) -> None:
    ops, _ = find_ops(graph_module)
    seen: list[str] = []

    def after(op: QuantizedOp, left: Tensor, right: Tensor, output: Tensor) -> Tensor:
        assert op.compute(left, right, None).shape == output.shape
        seen.append(op.left.name)
        return output

    with torch.inference_mode():
        assert torch.equal(GraphRunner(graph_module, ops, after=after).run(images), graph_module(images))
    assert seen == [op.left.name for op in ops]


def test_fake_quantisation_is_what_the_rewritten_graph_computes(vit: nn.Module, images: Tensor) -> None:
    quantized = quantize(vit, images, config=QuantizationConfig(preset="min_max", weight_bits=4))
    graph_module = prepared_graph(vit, images)
    ops = [op for op in find_ops(graph_module)[0] if op.left.name in quantized.plan.operands]
    with torch.inference_mode():
        output, expected = fake_quantized(graph_module, ops, quantized.plan.operands).run(images), quantized(images)
        exact = graph_module(images)
    # the two add biases in another order, so a value on the edge of two codes may fall on either side
    assert float((output - expected).norm()) < 0.1 * float((exact - expected).norm())


def test_two_models_run_side_by_side(graph_module: fx.GraphModule, images: Tensor) -> None:
    ops, _ = find_ops(graph_module)
    layers = [op for op in ops if op.has_weight]
    visited: list[str] = []
    differs: list[bool] = []

    def visit(op: QuantizedOp, exact: list[Tensor], quantized: list[Tensor]) -> None:
        visited.append(op.right.name)
        differs.append(not all(torch.equal(a, b) for a, b in zip(exact, quantized, strict=True)))

    def doubled(op: QuantizedOp, _left: Tensor, _right: Tensor, output: Tensor) -> Tensor:
        return output * 2 if op is layers[-2] else output

    with torch.inference_mode():
        run_side_by_side(
            GraphRunner(graph_module), GraphRunner(graph_module, ops, after=doubled), images.split(8), visit
        )
    assert visited == [op.right.name for op in layers]
    assert differs == [False] * (len(layers) - 1) + [True]
