"""Measurements of a quantisation: the noise of every operation, and how a budget was spent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vitrail.quantization.context import Context
from vitrail.quantization.graph.capture import constant
from vitrail.quantization.mixed_precision.budget import AllocationTrace
from vitrail.quantization.quantizers.kinds import Quantizer

HIGHEST_DECIBELS = 80.0
"""Value for operations without an error."""


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """
    Attributes:
        decibels: left operand of an operation -> signal to quantisation noise ratio of its output on the calibration
            sample, when only this operation is quantised and its weight is rounded to the nearest codes.
        allocation: choices, budget and allocation of mixed precision; None without a budget.
    """

    decibels: Mapping[str, float]
    allocation: AllocationTrace | None = None


def output_decibels(context: Context, operands: Mapping[str, Quantizer]) -> dict[str, float]:
    """See :class:`Diagnostics`; operations that are no matrix product, as depthwise convolutions, are left out."""
    result = {}
    for op in context.ops:
        observed = context.observations[op.left.name]
        left, right = observed.left, observed.right
        if right is not None:
            quantized = operands[op.right.name].fake_quantize(right)
        elif op.dense:
            weight = constant(context.graph_module, op.right.node)
            right = op.matrix(weight).t()
            quantized = op.matrix(operands[op.right.name].fake_quantize(weight)).t()
        else:
            continue
        exact, output = left @ right, operands[op.left.name].fake_quantize(left) @ quantized
        signal = float(observed.weighted(exact.square()).sum())
        noise = float(observed.weighted((output - exact).square()).sum())
        measurable = signal > 0 and noise > signal * 10 ** (-HIGHEST_DECIBELS / 10)
        result[op.left.name] = 10 * math.log10(signal / noise) if measurable else HIGHEST_DECIBELS
    return result
