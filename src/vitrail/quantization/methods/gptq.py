"""Rounding of weights: to the nearest codes or by GPTQ, with a correction for quantised inputs.

Source: GPTQ, arXiv:2210.17323 (each column's rounding error is spread over the columns that follow, by the inverse
Hessian of the layer's output error). A rounding is kept only if it lowers the layer's output error on images that it
was not fitted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vitrail.quantization.config import ResolvedConfig
from vitrail.quantization.context import Context
from vitrail.quantization.graph.ops import QuantizedOp
from vitrail.quantization.graph.runner import GraphRunner, Layer, fake_quantized, run_side_by_side
from vitrail.quantization.methods.calibration import BATCH_SIZE
from vitrail.quantization.methods.correction import RIDGES, Moments, Rows, output_error, ridge_target
from vitrail.quantization.plan import Rounding
from vitrail.quantization.quantizers.kinds import Quantizer
from vitrail.quantization.quantizers.uniform import UniformQuantizer

DAMPING = 0.01
"""Share of the mean squared input added to the Hessian's diagonal, as GPTQ does."""

BLOCK = 64
"""Columns whose errors are spread at once."""

ROWS = 4096
"""Rows of a batch that are used; a convolution on a large picture has many alike."""

FLOOR = 0.1
"""Share of the mean Fisher information that is added to each position's: gradients describe small errors only."""

HELD_OUT = 4
"""One batch in this many is held out: the error is measured on it, and nothing is fitted to it."""


def round_weights(context: Context, operands: Mapping[str, Quantizer]) -> dict[str, Rounding]:
    """Codes and biases of all quantised dense layers, by weight operand; a quarter of the images is held out.

    Args:
        operands: operand name -> quantiser, of weights and activations.
    """
    graph_module, resume = context.graph_module, context.resume
    current: dict[str, Layer] = {}

    def visit(op: QuantizedOp, exact: list[Tensor], quantized: list[Tensor]) -> None:
        name, (weight, bias) = op.right.name, op.constants(graph_module)
        quantizer = operands[name]
        current.clear()
        if not isinstance(quantizer, UniformQuantizer) or not op.dense:
            current[name] = quantizer.fake_quantize(weight), bias
            return
        nearest = quantizer.quantize(weight)
        if name not in resume.rounding:
            inputs = [operands[op.left.name].fake_quantize(x) for x in quantized]
            batches = _rows(op, exact, inputs, context.observations[op.left.name].fisher)
            by_rows = replace(quantizer, axis=0)  # the channels of the layer's matrix
            codes, new_bias = best_rounding(op.matrix(weight), bias, by_rows, batches, context.config.resolved())
            resume.add_rounding(name, Rounding.of(op.unflatten_weight(codes, weight.shape), nearest, new_bias))
        rounding = resume.rounding[name]
        current[name] = (
            quantizer.dequantize(rounding.codes(nearest)),
            bias if rounding.bias is None else rounding.bias,
        )

    with torch.inference_mode():
        run_side_by_side(
            GraphRunner(graph_module),
            fake_quantized(graph_module, context.ops, operands, layer=lambda op, *_: current[op.right.name]),
            context.images.split(BATCH_SIZE),
            visit,
            progress=context.progress,
        )
    return dict(resume.rounding)


def best_rounding(
    matrix: Tensor,
    bias: Tensor | None,
    quantizer: UniformQuantizer,
    batches: list[Rows],
    choices: ResolvedConfig,
) -> tuple[Tensor, Tensor | None]:
    """The codes (outputs, d) and the bias, None for the old one, with the smallest error of a layer's outputs.

    Args:
        matrix: float weight (outputs, d).
        quantizer: symmetric quantiser of its rows.
        batches: inputs of the layer.
    """
    fitted = [rows for index, rows in enumerate(batches) if index % HELD_OUT != HELD_OUT - 1]
    held = batches[HELD_OUT - 1 :: HELD_OUT] or fitted
    moments = Moments.of(fitted)
    best: tuple[Tensor, Tensor | None] | None = None
    least = float("inf")
    for codes in _candidates(matrix, quantizer, moments, choices):
        approximate = quantizer.dequantize(codes)
        offset = matrix @ moments.mean - approximate @ moments.mean_quantized
        corrections = [None] if choices.correction == "none" else [None, offset]
        for correction in corrections:
            error = output_error(matrix, approximate, correction, held)
            if error < least:
                new_bias = None if correction is None else correction + (0 if bias is None else bias)
                least, best = error, (codes, new_bias)
    assert best is not None
    return best


def _candidates(
    matrix: Tensor, quantizer: UniformQuantizer, moments: Moments, choices: ResolvedConfig
) -> Iterator[Tensor]:
    targets = [matrix]
    if choices.correction == "ridge":
        targets += [ridge_target(matrix, moments, strength) for strength in RIDGES]
    for target in targets:
        yield quantizer.quantize(target)
        if choices.rounding == "gptq":
            yield gptq_codes(target, quantizer, moments.gram)


def gptq_codes(matrix: Tensor, quantizer: UniformQuantizer, gram: Tensor) -> Tensor:
    """Codes (outputs, d) rounded column by column, each column's error spread over those that follow.

    Args:
        matrix: float weight (outputs, d).
        quantizer: symmetric quantiser of its rows.
        gram: second moments of the inputs, (d, d).
    """
    order = gram.diagonal().argsort(descending=True)  # the columns that matter most while all others can still help
    hessian = gram[order][:, order].double()
    damping = DAMPING * hessian.diagonal().mean().clamp(min=1e-12)
    hessian.diagonal().add_(damping)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True).float()
    weight = matrix[:, order].clone()
    codes = torch.empty_like(weight)
    scale = quantizer.scale
    for start in range(0, weight.shape[1], BLOCK):
        end = min(start + BLOCK, weight.shape[1])
        errors = torch.empty(len(weight), end - start)
        for column in range(start, end):
            values = weight[:, column]
            codes[:, column] = torch.round(values / scale).clamp_(quantizer.quant_min, quantizer.quant_max)
            errors[:, column - start] = (values - codes[:, column] * scale) / factor[column, column]
            weight[:, column:end] -= errors[:, column - start, None] * factor[column, column:end]
        weight[:, end:] -= errors @ factor[start:end, end:]
    result = torch.empty(codes.shape, dtype=quantizer.dtype)
    result[:, order] = codes.to(quantizer.dtype)
    return result


def _rows(op: QuantizedOp, exact: list[Tensor], quantized: list[Tensor], fisher: Tensor | None) -> list[Rows]:
    """At most ``ROWS`` of each batch's rows, evenly spread."""
    batches, start = [], 0
    for x, z in zip(exact, quantized, strict=True):
        rows, other = op.rows(x), op.rows(z)
        stride = max(-(-len(rows) // ROWS), 1)
        sample_weight = torch.ones(len(rows))
        if fisher is not None and fisher.mean() > 0:  # no gradient at a level of a detector without chosen proposals
            sample_weight = fisher[start : start + len(rows)] + FLOOR * fisher.mean()
        start += len(rows)
        batches.append(Rows(rows[::stride], other[::stride], sample_weight[::stride]))
    return batches
