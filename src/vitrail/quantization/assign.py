"""The quantiser of each operand, at any bit width."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import fx

from vitrail.core.errors import QuantizationError
from vitrail.core.progress import track
from vitrail.quantization.config import MAX_BITS
from vitrail.quantization.context import Context
from vitrail.quantization.graph.capture import constant
from vitrail.quantization.graph.ops import Operand, QuantizedOp
from vitrail.quantization.methods.importance import left_importance, right_importance
from vitrail.quantization.methods.two_region import fit_activation, with_outliers
from vitrail.quantization.quantizers.group import GroupQuantizer, as_groups
from vitrail.quantization.quantizers.kinds import Quantizer
from vitrail.quantization.quantizers.observers import observe_channels, observe_tensor
from vitrail.quantization.quantizers.uniform import UniformQuantizer

HALF = 127 / 63
"""Multiple of a signed symmetric quantiser's scale with which it takes half of its codes."""


class QuantizerCandidates:
    """The quantiser of each operand at any bit width, fitted to the observations on first use.

    Attributes:
        operands: operand name -> operand, of all factors.
        sources: activation operand -> the first one that is the same tensor in the same form; they share a quantiser.
        counts: operand name -> number of elements of a weight, or of an activation for one image.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.choices = context.config.resolved()
        self.operands: dict[str, Operand] = {}
        self.sources: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self._ops: dict[str, QuantizedOp] = {}
        first: dict[tuple[fx.Node, bool, bool, bool], str] = {}
        for op in context.ops:
            observed = context.observations[op.left.name]
            for operand, count in ((op.left, observed.left_count), (op.right, observed.right_count)):
                self.operands[operand.name], self._ops[operand.name] = operand, op
                self.counts[operand.name] = count
                if operand.axis is None:
                    key = (operand.node, operand.signed, operand.symmetric, self._halves(op, operand))
                    self.sources[operand.name] = first.setdefault(key, operand.name)
        self.quantizer = functools.cache(self._fit)
        """The quantiser of an operand (by name) at a bit width."""

    def assign_quantizers(self, bit_widths: Mapping[str, int]) -> dict[str, Quantizer]:
        """The quantisers of all operands at the given bit widths, in the order of the graph."""
        result: dict[str, Quantizer] = {}
        for op in track(self.context.ops, "Choosing scales", progress=self.context.progress):
            for operand in (op.left, op.right):
                result[operand.name] = self.quantizer(operand.name, bit_widths[operand.name])
            grouped = self.context.config.group_size
            if op.output is not None and bit_widths[op.left.name] == MAX_BITS and not grouped:
                result[op.output.name] = self._output(op, op.output)
        return result

    def _fit(self, name: str, bit_width: int) -> Quantizer:
        if self.sources.get(name, name) != name:
            result: Quantizer = self.quantizer(self.sources[name], bit_width)
            return result
        op, operand = self._ops[name], self.operands[name]
        fit = self._weight if operand.role == "weight" else self._activation
        try:
            if bit_width < MAX_BITS or not self._halves(op, operand):
                return fit(op, operand, bit_width)
            if operand.role == "weight":
                return fit(op, operand, MAX_BITS - 1)
            full = fit(op, operand, MAX_BITS)
            assert isinstance(full, UniformQuantizer)
            return replace(full, scale=full.scale * HALF)  # still 8 bits, which a runtime takes
        except QuantizationError as error:
            raise QuantizationError(f"{name}: {error}") from error

    def _halves(self, op: QuantizedOp, operand: Operand) -> bool:
        """The operand takes half of its 8-bit codes, so that two products with uint8 fit into 16 bits."""
        return self.context.config.target_cpu == "avx2" and operand.name == op.right.name

    def _weight(self, op: QuantizedOp, operand: Operand, bit_width: int) -> Quantizer:
        weight, group_size = constant(self.context.graph_module, operand.node), self.context.config.group_size
        observer, axis = self.choices.observer, operand.axis or 0
        if group_size and axis == 0:
            inner = observe_channels(as_groups(weight, group_size), 0, bit_width=bit_width, observer=observer)
            return GroupQuantizer(group_size=group_size, channels=len(weight), inner=inner)
        observed = self.context.observations[op.left.name]
        importance = observed.weighted(observed.left.square()).sum(0) if op.dense and observer == "hessian" else None
        return observe_channels(weight, axis, bit_width=bit_width, observer=observer, importance=importance)

    def _activation(self, op: QuantizedOp, operand: Operand, bit_width: int) -> Quantizer:
        observed, choices = self.context.observations[op.left.name], self.choices
        left, gradients = operand.name == op.left.name, choices.needs_gradients
        values, importance = observed.left, None
        if left:
            importance = left_importance(self.context.graph_module, op, observed, gradients=gradients)
        elif observed.right is not None:
            values, importance = observed.right, right_importance(observed, gradients=gradients)
        if choices.observer == "min_max":  # a sample would miss the extremes
            low, high = (observed.low, observed.high) if left else (observed.right_low, observed.right_high)
            values, importance = torch.stack([low.min(), high.max()]), None
        quantizer = fit_activation(
            operand, values, bit_width=bit_width, config=self.context.config, importance=importance
        )
        outlying = choices.channels == "outlier" and bit_width < MAX_BITS
        if outlying and left and op.kind in ("linear", "matmul") and op.has_weight:
            return with_outliers(quantizer, values, observer=choices.observer, importance=importance)
        return quantizer

    def _output(self, op: QuantizedOp, operand: Operand) -> Quantizer:
        """The quantiser of a convolution's output, which ONNX Runtime needs too; always 8 bits."""
        values = self.context.observations[op.left.name].output
        assert values is not None
        return observe_tensor(
            values,
            bit_width=MAX_BITS,
            signed=operand.signed,
            symmetric=operand.symmetric,
            observer="min_max" if self.choices.observer == "min_max" else "mse",
        )
