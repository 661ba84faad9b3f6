"""One pass of the calibration images through the float graph: samples of every operation's factors, and gradients.

All later decisions (scales, regions, smoothing, bit widths) are made on these samples. The gradients weigh the errors:
they are those of the log-likelihood of labels drawn from the model's own prediction, whose mean square is the Fisher
information, or of a random projection where the output is no row of logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vitrail.core.errors import QuantizationError
from vitrail.core.progress import track
from vitrail.quantization.context import Context, Observation
from vitrail.quantization.graph.ops import Operand, QuantizedOp
from vitrail.quantization.graph.runner import GraphRunner

BATCH_SIZE = 8

SAMPLE_ELEMENTS = 2**19
"""Values of an operand that are kept, spread over all images."""

OBSERVED = ("left", "sample_weight", "image", "right", "gradient", "fisher", "output")
"""Fields of an observation with an entry for each sample or value, which are joined over the batches."""


def calibrate(context: Context, *, gradients: bool = True) -> dict[str, Observation]:
    """Observations by the name of the left operand.

    Args:
        gradients: run backwards too.

    Raises:
        QuantizationError: an activation is NaN, infinite, or one constant for all images; the message names it.
    """
    batches = context.images.split(BATCH_SIZE)
    recorder = _Recorder(context, len(batches))
    for batch in track(batches, "Calibrating", progress=context.progress):
        recorder.observe(batch, gradients)
    return {op.left.name: recorder.observation(op, len(context.images)) for op in context.ops}


class _Recorder:
    """Runs the graph and samples the factors of its operations."""

    def __init__(self, context: Context, num_batches: int) -> None:
        self.runner = GraphRunner(context.graph_module, context.ops, after=self._record)
        self.limit = max(SAMPLE_ELEMENTS // num_batches, 1)
        self.generator = torch.Generator().manual_seed(context.seed)
        self.parts: dict[str, list[Observation]] = {op.left.name: [] for op in context.ops}
        self.num_seen = self.batch_size = 0
        self.outputs: list[tuple[QuantizedOp, Tensor, Tensor]] = []

    def observe(self, batch: Tensor, gradients: bool) -> None:
        self.batch_size = len(batch)
        with torch.set_grad_enabled(gradients):
            output = self.runner.run(batch.detach().clone().requires_grad_(gradients))
            if gradients:
                objective(output, self.generator).backward()
        for op, rows, result in self.outputs:
            gradient = torch.zeros_like(result) if result.grad is None else result.grad
            if gradients:
                places = _output_rows(op, gradient)
                part = self.parts[op.left.name][-1]
                part.gradient = places[rows]
                part.fisher = places.square().flatten(1).mean(1) if op.dense else None
        self.outputs.clear()
        self.num_seen += len(batch)

    def _record(self, op: QuantizedOp, left: Tensor, right: Tensor, output: Tensor) -> Tensor:
        left, right = left.detach(), right.detach()
        _check_finite(op.left, left)
        if not op.has_weight:
            _check_finite(op.right, right)
        channels = left.movedim(1 if "conv" in op.kind else -1, 0) if op.has_weight else left.reshape(1, -1)
        low, high = channels.flatten(1).aminmax(dim=1)
        right_low, right_high = right.aminmax()
        rows = op.rows(left) if op.has_weight else _matrices(left, output)
        size = max(rows[0].numel(), 0 if op.has_weight else _matrices(right, output)[0].numel())
        indices, sample_weight = _sample_rows(rows, max(self.limit // size, 1), self.generator)
        if output.requires_grad:
            output.retain_grad()
        self.outputs.append((op, indices, output))
        self.parts[op.left.name].append(
            Observation(
                left=rows[indices].clone(),
                sample_weight=sample_weight,
                image=self.num_seen + indices * self.batch_size // len(rows),
                right=None if op.has_weight else _matrices(right, output)[indices].clone(),
                output=self._sample(output) if op.output is not None else None,
                low=low,
                high=high,
                right_low=right_low,
                right_high=right_high,
                left_count=left.numel(),
                right_count=right.numel(),
            )
        )
        return output

    def _sample(self, value: Tensor) -> Tensor:
        """Some values and both extremes."""
        flat = value.detach().reshape(-1)
        some = torch.randint(len(flat), (min(self.limit, len(flat)),), generator=self.generator)
        return torch.cat([flat[some], flat.amin()[None], flat.amax()[None]])

    def observation(self, op: QuantizedOp, num_images: int) -> Observation:
        parts = self.parts[op.left.name]

        def joined(name: str) -> Any:
            """The samples of all batches; None where there are none."""
            tensors = [value for part in parts if (value := getattr(part, name)) is not None]
            return torch.cat(tensors) if tensors else None

        counts = sum(part.left_count for part in parts), sum(part.right_count for part in parts)
        observation = Observation(
            **{name: joined(name) for name in OBSERVED},
            low=torch.stack([part.low for part in parts]).amin(0),
            high=torch.stack([part.high for part in parts]).amax(0),
            right_low=torch.stack([part.right_low for part in parts]).amin(),
            right_high=torch.stack([part.right_high for part in parts]).amax(),
            left_count=counts[0] // num_images,
            right_count=parts[0].right_count if op.has_weight else counts[1] // num_images,
        )
        _check_alive(op.left, observation.low.min(), observation.high.max(), num_images)
        if observation.right is not None:
            _check_alive(op.right, observation.right_low, observation.right_high, num_images)
        return observation


def objective(output: Tensor, generator: torch.Generator) -> Tensor:
    """A scalar whose gradients' squares weigh errors, summed over the images."""
    if output.ndim == 2 and output.shape[1] > 1:
        drawn = torch.multinomial(output.detach().float().softmax(-1), 1, generator=generator)[:, 0]
        return F.cross_entropy(output.float(), drawn, reduction="sum")
    direction = torch.randn(output.shape, generator=generator) * output[0].numel() ** -0.5
    return (output * direction).sum()


def _sample_rows(rows: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of the rows with the largest values and of some others, and their sample weights."""
    if count >= len(rows):
        return torch.arange(len(rows)), torch.ones(len(rows))
    order = rows.flatten(1).abs().amax(1).argsort(descending=True)
    top, others = order[: count // 4], order[count // 4 :]
    some = others[torch.randperm(len(others), generator=generator)[: count - len(top)]]
    weight = torch.cat([torch.ones(len(top)), torch.full((len(some),), len(others) / len(some))])
    return torch.cat([top, some]), weight


def _matrices(factor: Tensor, product: Tensor) -> Tensor:
    """A factor of a matrix product as a list of matrices, repeated as the product broadcasts it."""
    return factor.expand(*product.shape[:-2], *factor.shape[-2:]).reshape(-1, *factor.shape[-2:])


def _output_rows(op: QuantizedOp, output: Tensor) -> Tensor:
    """The positions of an output in the order of the factor's rows."""
    if not op.has_weight:
        return output.reshape(-1, *output.shape[-2:])
    last = output.movedim(1, -1) if "conv" in op.kind else output
    return last.reshape(-1, last.shape[-1])


def _check_finite(operand: Operand, x: Tensor) -> None:
    low, high = x.aminmax()
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise QuantizationError(
            f"activation {operand.name} holds NaN or infinity; check the model and the calibration images"
        )


def _check_alive(operand: Operand, low: Tensor, high: Tensor, num_images: int) -> None:
    # attention over a single token has the constant probability 1, and that is right; a transposed one has no such role
    if low == high and operand.role != "softmax" and float(low) != 1:
        raise QuantizationError(
            f"activation {operand.name} is {float(low):g} everywhere on all {num_images} calibration images; pass "
            f"real, normalised images and a trained model, or name the module in keep_float"
        )
