"""Sensitivity: the increase of the loss by quantising one tensor at each bit width.

``predict_losses`` needs one forward and a few backward passes an image, for all tensors and bit widths together. With
y the output, J its Jacobian in a tensor x, F the curvature of the loss in y, and d the error of quantising x, the
increase of the loss is about 1/2 d^T J^T F J d: gradients of a suitably random function of y have the covariance
J^T F J, so that the mean of (gradient . d)^2 estimates it (the sampled Fisher information of Martens 2014,
arXiv:1412.1193; HAWQ and BRECQ use similar estimates).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from vitrail.core.errors import QuantizationError
from vitrail.core.progress import track
from vitrail.quantization.graph.capture import constant
from vitrail.quantization.graph.ops import QuantizedOp
from vitrail.quantization.graph.runner import GraphRunner

Objective = Literal["probabilities", "values"]
"""The part of the output that is compared: the class probabilities of logits (..., c), or all values."""

Losses = dict[str, tuple[float, ...]]
"""Operand name -> the loss at each bit width."""


def objective_of(graph_module: fx.GraphModule, images: Tensor) -> Objective:
    """ "probabilities" for a model whose output is one row an image, (n, c)."""
    with torch.inference_mode():
        return "probabilities" if graph_module(images[:1]).ndim == 2 else "values"


def output_loss(output: Tensor, reference: Tensor, objective: Objective) -> float:
    """The distance of outputs (n, ...) to those of the float model; it needs no labels.

    "probabilities": mean Kullback-Leibler divergence of softmax over the last axis, in nats. "values": mean squared
    error by the mean square of the reference (0.01 is a signal to noise ratio of 20 dB).
    """
    output, reference = output.double(), reference.double()
    if objective == "values":
        return float((output - reference).square().mean() / reference.square().mean().clamp(min=1e-300))
    expected, actual = reference.log_softmax(-1), output.log_softmax(-1)
    return float(F.kl_div(actual, expected, reduction="none", log_target=True).sum(-1).mean())


def predict_losses(
    graph_module: fx.GraphModule,
    ops: Sequence[QuantizedOp],
    images: Tensor,
    bit_widths: Sequence[int],
    fake_quantize: Callable[[str, Tensor, int], Tensor],
    *,
    objective: Objective = "probabilities",
    num_draws: int = 4,
    seed: int = 0,
    progress: bool = False,
) -> Losses:
    """Predict the increase of :func:`output_loss` for every operand of every operation at every bit width.

    Args:
        graph_module: float graph that the operations are in.
        ops: operations whose operands are to be quantised.
        images: normalised calibration images (n, c, h, w); 16 to 64 are enough.
        bit_widths: candidates.
        fake_quantize: quantises and dequantises a tensor (by operand name, for one image) at a bit width.
        objective: part of the output that the loss compares.
        num_draws: number of backward passes an image; more lower the noise of the estimate.
        seed: seed of the draws.
        progress: show a bar.

    Raises:
        QuantizationError: a prediction is not finite; the message names the operand.
    """
    generator = torch.Generator().manual_seed(seed)
    taps = _Taps(graph_module, ops)
    sums = {operand.name: [0.0] * len(bit_widths) for op in ops for operand in op.operands}
    weights = _weight_errors(graph_module, ops, bit_widths, fake_quantize)
    signal = 0.0
    # one image at a time: the gradient of a weight then belongs to one image, too
    for image in track(images.split(1), "Measuring sensitivity", progress=progress):
        with torch.enable_grad():
            output = taps.runner.run(image.detach().clone().requires_grad_())
            values = dict(taps.values)
            scalars = [_random_scalar(output, objective, generator) for _ in range(num_draws)]
            tensors = list(values.values())
            gradients = [torch.autograd.grad(s, tensors, retain_graph=True, allow_unused=True) for s in scalars]
        with torch.no_grad():
            signal += float(output.square().sum())
            for place, (name, value) in enumerate(values.items()):
                for index, bit_width in enumerate(bit_widths):
                    errors = weights.get(name)
                    error = errors[index] if errors else fake_quantize(name, value.detach(), bit_width) - value.detach()
                    sums[name][index] += sum(_squared_dot(row[place], error) for row in gradients)
    # a divergence is half its curvature's form, on average over images; a squared error the form itself, by the signal
    divisor = num_draws * (2 * len(images) if objective == "probabilities" else max(signal, 1e-30))
    losses = {name: tuple(total / divisor for total in row) for name, row in sums.items()}
    for name, row in losses.items():
        if not all(map(math.isfinite, row)):
            raise QuantizationError(f"the sensitivity of {name} is {max(row)}; check the model and the images")
    return losses


class _Taps:
    """Runs the graph with a tensor of its own for each operand of each operation, so that each has its own gradient.

    Attributes:
        values: operand name -> tensor of the last run.
    """

    def __init__(self, graph_module: fx.GraphModule, ops: Sequence[QuantizedOp]) -> None:
        self.runner = GraphRunner(graph_module, ops, before=self._factors, after=self._output)
        self.values: dict[str, Tensor] = {}

    def _factors(
        self, op: QuantizedOp, left: Tensor, right: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        return self._tap(op.left.name, left), self._tap(op.right.name, right), bias

    def _output(self, op: QuantizedOp, _left: Tensor, _right: Tensor, output: Tensor) -> Tensor:
        return output if op.output is None else self._tap(op.output.name, output)

    def _tap(self, name: str, value: Tensor) -> Tensor:
        tap = value.clone() if value.requires_grad else value.detach().clone().requires_grad_()
        self.values[name] = tap
        return tap


def _weight_errors(
    graph_module: fx.GraphModule,
    ops: Sequence[QuantizedOp],
    bit_widths: Sequence[int],
    fake_quantize: Callable[[str, Tensor, int], Tensor],
) -> dict[str, list[Tensor]]:
    """Errors of the weights, which are the same for every image."""
    errors = {}
    for op in ops:
        if op.has_weight:
            name, weight = op.right.name, constant(graph_module, op.right.node).detach()
            errors[name] = [fake_quantize(name, weight, bit_width) - weight for bit_width in bit_widths]
    return errors


def _random_scalar(output: Tensor, objective: Objective, generator: torch.Generator) -> Tensor:
    """A random function of the output whose gradient's covariance is the curvature of the loss, up to a factor."""
    if objective == "values":
        return (output * torch.randn(output.shape, generator=generator).to(output)).sum()
    rows = output.reshape(-1, output.shape[-1])
    drawn = torch.multinomial(rows.detach().softmax(-1).cpu(), 1, generator=generator).to(output.device)
    # independent draws of many positions add up to their mean divergence
    return rows.log_softmax(-1).gather(1, drawn).sum() / math.sqrt(len(rows))


def _squared_dot(gradient: Tensor | None, error: Tensor) -> float:
    return 0.0 if gradient is None else float((gradient * error).sum()) ** 2
