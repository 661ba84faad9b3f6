"""Predictions of the loss: right where the theory is exact, and in the right order where it is an approximation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, fx, nn

from vitrail.core.errors import QuantizationError
from vitrail.quantization.graph.ops import QuantizedOp, find_ops
from vitrail.quantization.graph.prepare import prepared_graph
from vitrail.quantization.graph.runner import GraphRunner
from vitrail.quantization.mixed_precision.sensitivity import Objective, output_loss, predict_losses


def fake_quantize(name: str, x: Tensor, bits: int) -> Tensor:
    """Symmetric, one scale a tensor."""
    scale = x.abs().max() / (2 ** (bits - 1) - 1)
    return (x / scale).round() * scale


def one_quantized(graph_module: fx.GraphModule, ops: Sequence[QuantizedOp], name: str, bits: int) -> GraphRunner:
    """The same graph with one operand of one operation really quantised."""

    def quantized(own: str, value: Tensor) -> Tensor:
        return fake_quantize(name, value, bits) if own == name else value

    return GraphRunner(
        graph_module,
        ops,
        before=lambda op, left, right, bias: (quantized(op.left.name, left), quantized(op.right.name, right), bias),
        after=lambda op, _left, _right, output: output if op.output is None else quantized(op.output.name, output),
    )


def true_losses(
    graph_module: fx.GraphModule,
    ops: Sequence[QuantizedOp],
    images: Tensor,
    bit_widths: Sequence[int],
    objective: Objective,
) -> dict[str, tuple[float, ...]]:
    """The loss of each operand alone at each bit width."""

    def measure(name: str, bits: int) -> float:
        with torch.inference_mode():
            # one by one, as activations have a scale an image here
            outputs = [one_quantized(graph_module, ops, name, bits).run(image) for image in images.split(1)]
            return output_loss(torch.cat(outputs), graph_module(images), objective)

    names = [operand.name for op in ops for operand in op.operands]
    return {name: tuple(measure(name, bits) for bits in bit_widths) for name in names}


def ranks(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).argsort().argsort().double()


@pytest.mark.parametrize("objective", ["probabilities", "values"])
def test_predictions_are_close_for_fine_codes(objective: Objective) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.GELU(), nn.Flatten(), nn.Linear(6 * 36, 5)).eval()
    images = torch.randn(24, 3, 8, 8)
    graph_module = prepared_graph(model, images)
    ops, _ = find_ops(graph_module)
    found = predict_losses(graph_module, ops, images, (6, 8), fake_quantize, objective=objective, num_draws=32)
    truth = true_losses(graph_module, ops, images, (6, 8), objective)
    assert set(found) == {"0:input", "0:weight", "0:output", "3:input", "3:weight"}
    for name, row in truth.items():
        assert found[name] == pytest.approx(row, rel=0.35), name


@pytest.mark.parametrize("family", ["vit", "edgevit"])
def test_predictions_rank_tensors_and_widths_as_measurements_do(
    family: str, images: Tensor, request: pytest.FixtureRequest
) -> None:
    model: nn.Module = request.getfixturevalue(family)
    graph_module = prepared_graph(model, images[:4])
    ops, _ = find_ops(graph_module)
    widths = (3, 6)
    found = predict_losses(graph_module, ops, images[:4], widths, fake_quantize)
    truth = true_losses(graph_module, ops, images[:4], widths, "probabilities")
    assert list(found) == list(truth)
    pairs = [(a, b) for name in found for a, b in zip(found[name], truth[name], strict=True)]
    correlation = torch.corrcoef(torch.stack([ranks([a for a, _ in pairs]), ranks([b for _, b in pairs])]))[0, 1]
    assert correlation > 0.9
    assert all(row[0] > row[1] for name, row in found.items() if max(row) > 0)


def test_a_tensor_counts_only_where_its_operation_uses_it() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.strong, self.weak = nn.Linear(48, 5), nn.Linear(48, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            result: Tensor = self.strong(x) + 0.01 * self.weak(x)
            return result

    torch.manual_seed(0)
    images = torch.randn(8, 3, 4, 4)
    graph_module = prepared_graph(Shared().eval(), images)
    ops, _ = find_ops(graph_module)
    found = predict_losses(graph_module, ops, images, (4,), fake_quantize, objective="values")
    assert found["weak:input"][0] < found["strong:input"][0] * 1e-3


def test_the_same_seed_gives_the_same_predictions_and_no_gradient_is_left(vit: nn.Module, images: Tensor) -> None:
    graph_module = prepared_graph(vit, images)
    ops, _ = find_ops(graph_module)
    one, other = (predict_losses(graph_module, ops, images[:2], (4,), fake_quantize, num_draws=1) for _ in range(2))
    assert one == other
    assert all(tensor.grad is None for tensor in [*graph_module.parameters(), *graph_module.buffers()])


def test_a_sensitivity_that_is_no_number_is_named(vit: nn.Module, images: Tensor) -> None:
    graph_module = prepared_graph(vit, images)
    ops, _ = find_ops(graph_module)

    def broken(name: str, x: Tensor, bits: int) -> Tensor:
        return x * math.nan if name == "head:weight" else x

    with pytest.raises(QuantizationError, match="sensitivity of head:weight is nan"):
        predict_losses(graph_module, ops, images[:1], (4,), broken, num_draws=1)


def test_output_loss_is_divergence_or_relative_error() -> None:
    one, other = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.0, 0.0]])
    # reference (1/4, 3/4) against (1/2, 1/2)
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert output_loss(other, one, "probabilities") == pytest.approx(expected)
    assert output_loss(one + 7, one, "probabilities") == pytest.approx(0, abs=1e-12)
    assert output_loss(torch.tensor([1.1, -2.2]), torch.tensor([1.0, -2.0]), "values") == pytest.approx(0.01)
