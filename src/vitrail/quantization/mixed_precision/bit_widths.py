"""The bit width of each operand: one for all weights and one for all activations, or as a budget allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from vitrail.quantization.assign import QuantizerCandidates
from vitrail.quantization.context import Context
from vitrail.quantization.graph.capture import constant
from vitrail.quantization.graph.runner import fake_quantized
from vitrail.quantization.mixed_precision.budget import Allocation, AllocationTrace, Budget, Choice
from vitrail.quantization.mixed_precision.exact import allocate_exactly
from vitrail.quantization.mixed_precision.greedy import allocate_greedily
from vitrail.quantization.mixed_precision.sensitivity import Losses, objective_of, output_loss, predict_losses

SENSITIVITY_IMAGES = 32
"""Images that sensitivities are measured on, one after the other."""

NUM_DRAWS = 4
"""Backward passes of each of them: with a quarter of the passes, noise decides between tensors (decision 0015)."""

CANDIDATES = (2, 3, 4, 5, 6, 8)
"""Bit widths that a budget may give; codes of 7 bits save too little to be worth a search."""

SCALE_BYTES = 5
"""Size of a channel's scale and zero point in the file."""

ALLOCATE: dict[str, Callable[[Sequence[Choice], Budget], Allocation]] = {
    "greedy": allocate_greedily,
    "exact": allocate_exactly,
}


def assign_bit_widths(
    context: Context, quantizers: QuantizerCandidates
) -> tuple[dict[str, int], AllocationTrace | None]:
    """Operand name -> bit width; and how the budget was spent, if there is one.

    Raises:
        QuantizationError: a budget that the narrowest formats exceed; the message gives the smallest possible.
    """
    config = context.config
    bit_widths = {
        name: config.weight_bits if operand.role == "weight" else config.activation_bits
        for name, operand in quantizers.operands.items()
    }
    if not config.mixed:
        return bit_widths, None
    choices = _choices(context, quantizers)
    budget = _budget(context, bit_widths)
    allocation = ALLOCATE[config.allocation](choices, budget)
    sources = quantizers.sources
    mixed = {
        name: allocation.bit_widths.get(sources.get(name, name), bit_width) for name, bit_width in bit_widths.items()
    }
    if config.average_bits is not None:
        one = max(bit_width for bit_width in CANDIDATES if bit_width <= config.average_bits)
        uniform = {
            name: one if _free(context, quantizers, name) else bit_width for name, bit_width in bit_widths.items()
        }
        # predictions are added up, though errors interact: one width for all is taken where it is measured to be better
        measured = [_measure(context, quantizers, each) for each in (mixed, uniform)]
        if measured[1] <= measured[0]:
            return uniform, None
    return mixed, AllocationTrace(choices=tuple(choices), budget=budget, allocation=allocation)


def _free(context: Context, quantizers: QuantizerCandidates, name: str) -> bool:
    """The budget decides the bit width of an operand."""
    operand = quantizers.operands.get(name)
    return operand is not None and (operand.role == "weight" or context.config.mixed_activations)


def _choices(context: Context, quantizers: QuantizerCandidates) -> list[Choice]:
    """One for each weight, and for each activation, which several operations may read."""
    losses, sources = _losses(context, quantizers), quantizers.sources
    choices = []
    for name in losses:
        if sources.get(name, name) != name:
            continue
        shared = [other for other, source in sources.items() if source == name] or [name]
        total = tuple(sum(losses[other][index] for other in shared) for index in range(len(CANDIDATES)))
        is_weight = quantizers.operands[name].role == "weight"
        choices.append(
            Choice(name=name, count=quantizers.counts[name], is_weight=is_weight, bit_widths=CANDIDATES, loss=total)
        )
    return choices


def _losses(context: Context, quantizers: QuantizerCandidates) -> Losses:
    """The predicted losses of all operands whose bit width the budget decides."""

    def fake_quantize(name: str, x: Tensor, bit_width: int) -> Tensor:
        return quantizers.quantizer(name, bit_width).fake_quantize(x) if _free(context, quantizers, name) else x

    losses = predict_losses(
        context.graph_module,
        context.ops,
        context.images[:SENSITIVITY_IMAGES],
        CANDIDATES,
        fake_quantize,
        objective=objective_of(context.graph_module, context.images),
        num_draws=NUM_DRAWS,
        seed=context.seed,
        progress=context.progress,
    )
    return {name: row for name, row in losses.items() if _free(context, quantizers, name)}


def _measure(context: Context, quantizers: QuantizerCandidates, bit_widths: Mapping[str, int]) -> float:
    """The loss of the outputs with these bit widths, weights rounded to the nearest codes."""
    operands = {name: quantizers.quantizer(name, bit_width) for name, bit_width in bit_widths.items()}
    graph_module, images = context.graph_module, context.images
    with torch.inference_mode():
        output = fake_quantized(graph_module, context.ops, operands).run(images)
        return output_loss(output, graph_module(images), objective_of(graph_module, images))


def _budget(context: Context, bit_widths: Mapping[str, int]) -> Budget:
    """The budget of the configuration; all constants but the weights, and the weights' scales, have a fixed size."""
    if context.config.max_size_mb is None:
        return Budget(average_bits=context.config.average_bits)
    graph_module = context.graph_module
    fixed = sum(t.numel() * t.element_size() for t in [*graph_module.parameters(), *graph_module.buffers()])
    for op in context.ops:
        if op.has_weight and op.right.name in bit_widths:
            weight = constant(graph_module, op.right.node)
            fixed -= weight.numel() * weight.element_size()
            fixed += SCALE_BYTES * weight.shape[op.right.axis or 0]
    return Budget(max_size_bytes=int(context.config.max_size_mb * 1e6), fixed_size_bytes=fixed)
