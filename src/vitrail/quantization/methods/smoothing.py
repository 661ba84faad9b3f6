"""SQ-b: move channel-wise scale and offset of a norm's output into the norm and the layers that read it.

For channel j of a norm's output and layers with weight W: x'_j = (x_j - b_j) / s_j, W'_ij = W_ij s_j, c' = c + W b; the
norm's affine becomes gamma / s and (beta - b) / s. The output of the model is unchanged, but x' is centred on zero and
its channels have similar ranges, so that one scale suits them all.

Where no norm precedes a layer, or other nodes read the norm, the layer's input is divided in the graph, which costs one
multiplication: only where the quantisation error of a layer's input would be much larger than the mean, as behind a
GELU with activations a hundred times larger than the others, and where scales that are chosen on one half of the
calibration images lower the error on the other half too.

Sources: SmoothQuant, arXiv:2211.10438 (s); MPTQ-ViT, arXiv:2401.14895 (SQ-b, the bias b against clamped asymmetric
values; reconstructed, as its equations could not be read); RepQ-ViT, arXiv:2212.08254 (all of the channels' range).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, fx

from vitrail.quantization.config import SmoothingName
from vitrail.quantization.context import Context, Observation
from vitrail.quantization.graph.capture import constant
from vitrail.quantization.graph.ops import QuantizedOp
from vitrail.quantization.graph.prepare import argument, set_tensor
from vitrail.quantization.methods.smoothing_groups import (
    NORMS,
    Reader,
    SmoothingGroup,
    explicit_group,
    find_norm_groups,
)
from vitrail.quantization.plan import Smoothing
from vitrail.quantization.quantizers.observers import observe_channels, observe_tensor

aten = torch.ops.aten

ALPHAS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the channels' unevenness that go into the weights; 0 leaves the scale to the weights alone."""

LARGEST_SCALE = 1e4
"""Scales stay within [1 / this, this]: a dead channel must not make its neighbours overflow."""

COSTLY = 3
"""Multiple of the mean error of a layer's input above which its channels may be scaled explicitly. Three layers or
fewer cannot exceed it: there the mean is enough."""

EXPLICIT_GAIN = 0.5
"""Share of the former error that an explicit division must reach."""

PARTS = 8
"""Parts of the calibration images, on each of which a division that the others chose is tried."""

ROWS = 512
"""Sampled rows on which candidates are compared."""


def smooth(context: Context) -> dict[str, Smoothing]:
    """Smooth the graph, in place, where it lowers the error, and move the observations with it.

    Returns:
        Name of a group of layers -> its scaling.
    """
    method = context.config.resolved().smoothing
    if method == "none":
        return {}
    bit_widths = _assumed_bit_widths(context)
    groups = find_norm_groups(context.graph_module, context.ops, context.images)
    folded = {reader.op.left.name for group in groups for reader in group.readers}
    groups += [
        group
        for op in _costly_ops(context, bit_widths[1])
        if op.left.name not in folded and (group := explicit_group(op)) is not None
    ]
    results = {}
    for group in groups:
        smoothing = _search(context, group, method, bit_widths)
        if smoothing is not None:
            apply_smoothing(context.graph_module, group, smoothing)
            _move_observations(context, group, smoothing)
            results[group.name] = smoothing
    context.graph_module.recompile()
    return results


def smooth_again(
    graph_module: fx.GraphModule, ops: list[QuantizedOp], smoothing: Mapping[str, Smoothing], images: Tensor
) -> None:
    """Apply the smoothing of a plan to the float graph, in place.

    Args:
        images: any of the model's shape (n, c, h, w).
    """
    for group in find_norm_groups(graph_module, ops, torch.zeros_like(images[:1])):
        folded = smoothing.get(group.name)
        if folded is not None and not folded.explicit:
            apply_smoothing(graph_module, group, folded)
    for op in ops:
        divided, alone = smoothing.get(op.left.name), explicit_group(op)
        if divided is not None and divided.explicit and alone is not None:
            apply_smoothing(graph_module, alone, divided)


def _assumed_bit_widths(context: Context) -> tuple[int, int]:
    """The bit widths of weights and activations; with a mean of them, that mean."""
    config = context.config
    if config.average_bits is None:
        return config.weight_bits, config.activation_bits
    mean = int(config.average_bits)
    return mean, mean if config.mixed_activations else config.activation_bits


def _costly_ops(context: Context, bit_width: int) -> list[QuantizedOp]:
    """Dense layers whose input has an error far above the mean, if all channels have one scale."""
    losses = {}
    for op in context.ops:
        if op.dense:
            observed = context.observations[op.left.name]
            weight = constant(context.graph_module, op.right.node)
            inputs = observe_tensor(
                observed.left,
                bit_width=bit_width,
                signed=False,
                symmetric=False,
                importance=observed.weighted(torch.ones_like(observed.left)),
            )
            error = (inputs.fake_quantize(observed.left) - observed.left) @ op.matrix(weight).t()
            losses[op.left.name] = observed.loss(error)
    few = len(losses) <= COSTLY
    share = (1 if few else COSTLY) / max(len(losses), 1) * sum(losses.values())
    costly = operator.ge if few else operator.gt
    return [op for op in context.ops if op.left.name in losses and costly(losses[op.left.name], share)]


def _move_observations(context: Context, group: SmoothingGroup, smoothing: Smoothing) -> None:
    scale, shift = smoothing.scale, smoothing.shift
    for reader in group.readers:
        name, columns, channels = reader.op.left.name, reader.columns, reader.channels
        observed = context.observations[name]
        context.observations[name] = replace(
            observed,
            left=(observed.left - shift[columns]) / scale[columns],
            low=(observed.low - shift[channels]) / scale[channels],
            high=(observed.high - shift[channels]) / scale[channels],
        )


def apply_smoothing(graph_module: fx.GraphModule, group: SmoothingGroup, smoothing: Smoothing) -> None:
    """Fold scale and shift into the norm and its readers, in place; the graph computes what it did."""
    if group.norm is None:
        _divide(graph_module, group.readers[0].op, smoothing)
    else:
        _fold_into_norm(graph_module, group.norm, smoothing)
    for reader in group.readers:
        op = reader.op
        weight = constant(graph_module, op.right.node)
        scale, shift = smoothing.scale.to(weight.dtype), smoothing.shift.to(weight.dtype)
        matrix = op.matrix(weight)
        if bool(shift.any()):
            _add_to_bias(graph_module, op, matrix @ shift[reader.columns])
        folded = op.unflatten_weight(matrix * scale[reader.columns], weight.shape)
        set_tensor(graph_module, str(op.right.node.target), folded)


def _fold_into_norm(graph_module: fx.GraphModule, norm: fx.Node, smoothing: Smoothing) -> None:
    places = NORMS[norm.target]  # type: ignore[index]
    gamma, beta = (argument(norm, place, name) for place, name in zip(places, ("weight", "bias"), strict=True))
    for node in (gamma, beta):
        value = constant(graph_module, node)
        scale, shift = smoothing.scale.to(value.dtype), smoothing.shift.to(value.dtype)
        set_tensor(graph_module, str(node.target), ((value - shift) if node is beta else value) / scale)


def _divide(graph_module: fx.GraphModule, op: QuantizedOp, smoothing: Smoothing) -> None:
    """Multiply a layer's input by the reciprocal scales."""
    node = op.node
    scale = smoothing.scale.to(constant(graph_module, op.right.node).dtype)
    name = f"{node.name}_reciprocal_scale"
    graph_module.register_buffer(name, (1 / scale).view(-1, 1, 1) if op.kind == "conv" else 1 / scale)
    with graph_module.graph.inserting_before(node):
        product = graph_module.graph.call_function(aten.mul.Tensor, (node.args[0], graph_module.graph.get_attr(name)))
    node.args = (product, *node.args[1:])


def _add_to_bias(graph_module: fx.GraphModule, op: QuantizedOp, addend: Tensor) -> None:
    """A new bias for one layer: the old one may be shared."""
    node = op.node
    _, old = op.constants(graph_module)
    name = f"{node.name}_smoothed_bias"
    graph_module.register_buffer(name, addend if old is None else old + addend)
    with graph_module.graph.inserting_before(node):
        bias = graph_module.graph.get_attr(name)
    node.args = (*node.args[:2], bias, *node.args[3:])
    node.kwargs = {key: value for key, value in node.kwargs.items() if key != "bias"}


def _search(
    context: Context, group: SmoothingGroup, method: SmoothingName, bit_widths: tuple[int, int]
) -> Smoothing | None:
    """The scale and shift with the smallest error of the readers' outputs; None to leave the group as it is.

    Args:
        method: "smoothquant" scales only; "sq_b" also shifts; "repq" gives all channels the same range.
        bit_widths: bit widths of the weights and of the inputs.
    """
    graph_module, observations = context.graph_module, context.observations
    candidates = _candidates(graph_module, group, observations, method)
    errors = [_error(graph_module, group, observations, observations, one, bit_widths) for one in candidates]
    best = min(range(len(errors)), key=lambda index: errors[index])
    if best == 0 or errors[best] > (EXPLICIT_GAIN if group.norm is None else 1.0) * errors[0]:
        return None
    scale, shift = candidates[best]
    smoothing = Smoothing(scale=scale, shift=shift, explicit=group.norm is None)
    return smoothing if group.norm is not None or _holds_elsewhere(context, group, method, bit_widths) else None


def _holds_elsewhere(
    context: Context, group: SmoothingGroup, method: SmoothingName, bit_widths: tuple[int, int]
) -> bool:
    """Whether a division that is chosen without some of the images lowers the error on these, over all of them."""
    graph_module, [reader] = context.graph_module, group.readers
    name = reader.op.left.name
    observed, parts = context.observations[name], torch.arange(len(context.images)) % PARTS
    without = divided = 0.0
    for part in range(PARTS):
        seen, unseen = ({name: _of_images(observed, reader, wanted)} for wanted in (parts != part, parts == part))
        if not (len(seen[name].left) and len(unseen[name].left)):
            continue
        candidates = _candidates(graph_module, group, seen, method)
        errors = [_error(graph_module, group, seen, seen, one, bit_widths) for one in candidates]
        best = candidates[min(range(len(errors)), key=errors.__getitem__)]
        without += _error(graph_module, group, seen, unseen, candidates[0], bit_widths)
        divided += _error(graph_module, group, seen, unseen, best, bit_widths)
    return divided < without


def _of_images(observed: Observation, reader: Reader, wanted: Tensor) -> Observation:
    """The samples of some images (boolean, one an image), with the ranges of these."""
    part = observed.of_images(wanted)
    if not len(part.left):
        return part
    low = torch.full_like(observed.low, float("inf")).scatter_reduce_(0, reader.columns, part.left.amin(0), "amin")
    high = torch.full_like(low, -float("inf")).scatter_reduce_(0, reader.columns, part.left.amax(0), "amax")
    return replace(part, low=low, high=high)


def _candidates(
    graph_module: fx.GraphModule, group: SmoothingGroup, observations: Mapping[str, Observation], method: SmoothingName
) -> list[tuple[Tensor, Tensor]]:
    """Scales and shifts, first those that change nothing."""
    low, high = _channel_ranges(observations, group)
    shift = (low + high) / 2 if group.can_shift and method != "smoothquant" else torch.zeros_like(low)
    extent = torch.maximum((high - shift).abs(), (low - shift).abs())
    one = torch.ones_like(extent)
    if method == "repq":
        candidates = [(_normalised(extent), shift)]
    else:
        reach = _weight_reach(graph_module, group)
        scales = [_normalised(extent**alpha / reach ** (1 - alpha)) for alpha in ALPHAS]
        candidates = [(scale, shift) for scale in (one, *scales)]
    return [(one, torch.zeros_like(shift)), *candidates]


def _channel_ranges(observations: Mapping[str, Observation], group: SmoothingGroup) -> tuple[Tensor, Tensor]:
    low = torch.full((group.num_channels,), float("inf"))
    high = -low
    for reader in group.readers:
        observed = observations[reader.op.left.name]
        low.scatter_reduce_(0, reader.channels, observed.low, "amin")
        high.scatter_reduce_(0, reader.channels, observed.high, "amax")
    unread = torch.isinf(low)
    return low.masked_fill(unread, 0.0), high.masked_fill(unread, 0.0)


def _weight_reach(graph_module: fx.GraphModule, group: SmoothingGroup) -> Tensor:
    """The largest absolute weight of each channel."""
    reach = torch.zeros(group.num_channels)
    for reader in group.readers:
        columns = reader.op.matrix(constant(graph_module, reader.op.right.node)).abs().amax(0)
        reach.scatter_reduce_(0, reader.columns, columns, "amax")
    return reach.clamp(min=float(reach.max()) * 1e-5 + 1e-30)


def _normalised(scale: Tensor) -> Tensor:
    """Positive, of geometric mean 1, within bounds."""
    scale = scale.clamp(min=float(scale.max()) * 1e-5 + 1e-30)
    return (scale / scale.log().mean().exp()).clamp(1 / LARGEST_SCALE, LARGEST_SCALE)


def _error(
    graph_module: fx.GraphModule,
    group: SmoothingGroup,
    fitted: Mapping[str, Observation],
    measured: Mapping[str, Observation],
    moved: tuple[Tensor, Tensor],
    bit_widths: tuple[int, int],
) -> float:
    """Squared error of all readers' outputs, weighted by the gradients where there are any.

    Args:
        fitted: observations that the quantisers of the inputs are fitted to, by the reader's input.
        measured: observations that the error is summed over.
        moved: scale and shift.
        bit_widths: bit widths of the weights and of the inputs.
    """
    total = 0.0
    for reader in group.readers:
        op, name = reader.op, reader.op.left.name
        matrix = op.matrix(constant(graph_module, op.right.node)) * moved[0][reader.columns]
        weights = observe_channels(matrix, 0, bit_width=bit_widths[0])
        rows, _, sample_weight = _moved_rows(fitted[name], reader, moved)
        inputs = observe_tensor(
            rows, bit_width=bit_widths[1], signed=False, symmetric=False, importance=sample_weight.expand_as(rows)
        )
        rows, gradient, sample_weight = _moved_rows(measured[name], reader, moved)
        error = inputs.fake_quantize(rows) @ weights.fake_quantize(matrix).t() - rows @ matrix.t()
        weighted_error = error if gradient is None else error * gradient
        total += float((weighted_error.square() * sample_weight).sum())
    return total


def _moved_rows(
    observed: Observation, reader: Reader, moved: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Some rows of all images after scale and shift, their gradients, and their sample weights (n, 1)."""
    some = torch.linspace(0, len(observed.left) - 1, min(ROWS, len(observed.left))).long()
    scale, shift = (values[reader.columns] for values in moved)
    gradient = None if observed.gradient is None else observed.gradient[some]
    return (observed.left[some] - shift) / scale, gradient, observed.sample_weight[some, None]
