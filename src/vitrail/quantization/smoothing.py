"""SQ-b: move channel-wise scale and offset of a norm's output into the norm and the layers that read it.

For a channel j that a norm gives and layers with weight W take: x'_j = (x_j - b_j) / s_j, W'_ij = W_ij s_j,
c' = c + W b; the norm's affine becomes gamma / s and (beta - b) / s. The model computes what it did, but x' lies evenly
about zero and its channels are alike, so that one step suits them all.

Where no norm precedes a layer, or somebody else reads the norm, the layer's input is divided in the graph, at the price
of one multiplication: only where a layer's codes would cost much more than their share, as a hundredfold activation
behind a GELU does.

Sources: SmoothQuant, arXiv:2211.10438 (s); MPTQ-ViT, arXiv:2401.14895 (SQ-b, the bias b against clamped asymmetric
values; reconstructed, as its equations could not be read); RepQ-ViT, arXiv:2212.08254 (all of the channels' range).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx

from vitrail.quantization.calibration import Observation
from vitrail.quantization.graph import tensor_of
from vitrail.quantization.observers import observe_channels, observe_tensor
from vitrail.quantization.prepare import argument, set_tensor
from vitrail.quantization.sites import SHAPE_ONLY, Site

aten = torch.ops.aten

SmoothingName = Literal["none", "smoothquant", "sq_b", "repq"]

ALPHAS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""How much of the channels' unevenness goes into the weights; 0 leaves the activation's scale to the weights alone."""

LARGEST_SCALE = 1e4
"""Scales stay within [1 / this, this]: a dead channel must not make its neighbours overflow."""

NORMS = {aten.layer_norm.default: (2, 3), aten.batch_norm.default: (1, 2), aten.group_norm.default: (2, 3)}
"""Norm -> where its scale and its offset stand among its arguments."""


@dataclass(frozen=True)
class Smoothing:
    """What is done to the output of one norm, or explicitly to the input of one layer; one value a channel."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]
    explicit: bool = False

    def tensors(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Scale and shift."""
        return torch.tensor(self.scale, dtype=dtype), torch.tensor(self.shift, dtype=dtype)

    def to_dict(self) -> dict[str, Any]:
        return {"scale": list(self.scale), "shift": list(self.shift), "explicit": self.explicit}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Smoothing:
        return cls(scale=tuple(values["scale"]), shift=tuple(values["shift"]), explicit=bool(values["explicit"]))


@dataclass(frozen=True)
class Reader:
    """A layer that reads a norm's output.

    Attributes:
        channels: for each of its input channels, which of the norm's it is.
        padded: zeros were put between the norm and the layer, or by the layer itself.
    """

    site: Site
    channels: Tensor
    padded: bool

    @property
    def columns(self) -> Tensor:
        """The norm's channel for each column of the layer's matrix."""
        return self.channels.repeat_interleave(self.site.weight_shape[2:].numel())


@dataclass(frozen=True)
class SmoothingGroup:
    """A norm all of whose output goes into layers, so that whatever is done to it can be undone there; or one layer.

    Attributes:
        name: of the first reader's input; it stands for the group in a plan.
        norm: None for a layer whose input is divided explicitly.
        can_shift: no zeros are padded to the output, which an offset would turn into something else.
    """

    name: str
    norm: fx.Node | None
    num_channels: int
    readers: tuple[Reader, ...]
    can_shift: bool


def find_norm_groups(graph_module: fx.GraphModule, sites: Iterable[Site], images: Tensor) -> list[SmoothingGroup]:
    """All norms whose output goes only into dense layers; found by following channel numbers through the graph.

    Args:
        images: (n, c, h, w); only the shapes count.
    """
    interpreter = fx.Interpreter(graph_module, garbage_collect_values=False)
    with torch.inference_mode():
        interpreter.run(images[:1])
    readers = {site.node: site for site in sites if site.dense}
    groups = []
    for node in graph_module.graph.nodes:
        if node.target not in NORMS or not _affine(graph_module, node):
            continue
        output = interpreter.env[node]
        axis = -1 if node.target is aten.layer_norm.default else 1
        if node.target is aten.layer_norm.default and len(node.args[1]) != 1:
            continue
        count = output.shape[axis]
        shape = [1] * output.ndim
        shape[axis] = -1
        marks = torch.arange(1, count + 1, dtype=torch.float32).view(shape).expand(output.shape)
        found = _follow(node, marks, readers, interpreter)
        if found:
            biased = all(reader.site.kind != "matmul" for reader in found)
            groups.append(
                SmoothingGroup(
                    name=found[0].site.left.name,
                    norm=node,
                    num_channels=count,
                    readers=tuple(found),
                    can_shift=biased and not any(reader.padded for reader in found),
                )
            )
    return groups


def explicit_group(site: Site) -> SmoothingGroup | None:
    """A dense layer alone; None if its input or its weight has other readers."""
    source = site.node.args[0]
    if not site.dense or not isinstance(source, fx.Node) or len(source.users) != 1 or len(site.right.node.users) != 1:
        return None
    count = site.weight_shape[0 if site.kind == "matmul" else 1]
    reader = Reader(site=site, channels=torch.arange(count), padded=_pads(site))
    return SmoothingGroup(name=site.left.name, norm=None, num_channels=count, readers=(reader,), can_shift=False)


def _affine(graph_module: fx.GraphModule, norm: fx.Node) -> bool:
    """Both of the norm's parameters exist, and nobody else reads them."""
    places = NORMS[norm.target]  # type: ignore[index]
    nodes = [argument(norm, place, name) for place, name in zip(places, ("weight", "bias"), strict=True)]
    return all(tensor_of(graph_module, node) is not None and len(node.users) == 1 for node in nodes)


def _follow(
    start: fx.Node, marks: Tensor, readers: Mapping[fx.Node, Site], interpreter: fx.Interpreter
) -> list[Reader] | None:
    """The layers that all of ``start`` goes into; None if something else reads it, or channels get mixed."""
    found: list[Reader] = []
    pending: list[tuple[fx.Node, Any]] = [(start, marks)]
    while pending:
        node, value = pending.pop()
        for user in node.users:
            if user in readers and user.args[0] is node:
                reader = _reader(readers[user], value)
                if reader is None:
                    return None
                found.append(reader)
            elif user.target is operator.getitem or getattr(user.target, "overloadpacket", None) in SHAPE_ONLY:
                fetch = lambda other: value if other is node else interpreter.env[other]  # noqa: E731, B023
                args, kwargs = fx.node.map_arg(user.args, fetch), fx.node.map_arg(user.kwargs, fetch)
                pending.append((user, user.target(*args, **kwargs)))  # type: ignore[operator]
            elif user.op != "output" and not user.users:
                continue
            else:
                return None
    return found


def _reader(site: Site, marks: Tensor) -> Reader | None:
    """The layer, if each of its input channels is one of the norm's everywhere, or zeros of a padding."""
    lines = marks.movedim(1 if site.kind == "conv" else -1, 0).flatten(1)
    numbers = lines.amax(1)
    alike = bool(((lines == numbers[:, None]) | (lines == 0)).all()) and bool((numbers > 0).all())
    if not alike or len(site.right.node.users) != 1:
        return None
    return Reader(site=site, channels=numbers.long() - 1, padded=_pads(site) or bool((lines == 0).any()))


def _pads(site: Site) -> bool:
    padding = argument(site.node, 4, "padding", 0) if site.kind == "conv" else 0
    return any(padding) if isinstance(padding, list | tuple) else bool(padding)


def apply_smoothing(graph_module: fx.GraphModule, group: SmoothingGroup, smoothing: Smoothing) -> None:
    """Fold scale and shift into the norm and its readers, in place; the graph computes what it did."""
    if group.norm is None:
        _divide(graph_module, group.readers[0].site, smoothing)
    else:
        _fold_into_norm(graph_module, group.norm, smoothing)
    for reader in group.readers:
        site = reader.site
        weight = _constant(graph_module, site.right.node)
        scale, shift = smoothing.tensors(weight.dtype)
        matrix = site.matrix(weight)
        if bool(shift.any()):
            _add_to_bias(graph_module, site, matrix @ shift[reader.columns])
        folded = site.weight(matrix * scale[reader.columns], weight.shape)
        set_tensor(graph_module, str(site.right.node.target), folded)


def _fold_into_norm(graph_module: fx.GraphModule, norm: fx.Node, smoothing: Smoothing) -> None:
    places = NORMS[norm.target]  # type: ignore[index]
    gamma, beta = (argument(norm, place, name) for place, name in zip(places, ("weight", "bias"), strict=True))
    for node in (gamma, beta):
        value = _constant(graph_module, node)
        scale, shift = smoothing.tensors(value.dtype)
        set_tensor(graph_module, str(node.target), ((value - shift) if node is beta else value) / scale)


def _divide(graph_module: fx.GraphModule, site: Site, smoothing: Smoothing) -> None:
    """Multiply a layer's input by the reciprocal scales."""
    node = site.node
    scale, _ = smoothing.tensors(_constant(graph_module, site.right.node).dtype)
    name = f"{node.name}_reciprocal_scale"
    graph_module.register_buffer(name, (1 / scale).view(-1, 1, 1) if site.kind == "conv" else 1 / scale)
    with graph_module.graph.inserting_before(node):
        product = graph_module.graph.call_function(aten.mul.Tensor, (node.args[0], graph_module.graph.get_attr(name)))
    node.args = (product, *node.args[1:])


def _add_to_bias(graph_module: fx.GraphModule, site: Site, addend: Tensor) -> None:
    """A new bias for one layer: the old one may be shared."""
    node = site.node
    old = tensor_of(graph_module, argument(node, 2, "bias"))
    name = f"{node.name}_smoothed_bias"
    graph_module.register_buffer(name, addend if old is None else old + addend)
    with graph_module.graph.inserting_before(node):
        bias = graph_module.graph.get_attr(name)
    node.args = (*node.args[:2], bias, *node.args[3:])
    node.kwargs = {key: value for key, value in node.kwargs.items() if key != "bias"}


def search_smoothing(
    graph_module: fx.GraphModule,
    group: SmoothingGroup,
    observations: Mapping[str, Observation],
    *,
    method: str,
    weight_bits: int,
    activation_bits: int,
    alphas: Sequence[float] = ALPHAS,
) -> Smoothing | None:
    """The scale and shift with which codes of these widths disturb the readers' outputs least; None to leave it.

    Args:
        observations: by the name of the left operand, of all readers.
        method: "smoothquant" scales only; "sq_b" also shifts; "repq" gives all channels the same range.
        alphas: exponents that are tried.
    """
    low, high = _channel_ranges(group, observations)
    shift = (low + high) / 2 if group.can_shift and method != "smoothquant" else torch.zeros_like(low)
    extent = torch.maximum((high - shift).abs(), (low - shift).abs())
    one = torch.ones_like(extent)
    if method == "repq":
        candidates = [(_normalised(extent), shift)]
    else:
        reach = _weight_reach(graph_module, group)
        scales = [_normalised(extent**alpha / reach ** (1 - alpha)) for alpha in alphas]
        candidates = [(scale, shift) for scale in (one, *scales)]
    candidates = [(one, torch.zeros_like(shift)), *candidates]
    widths = (weight_bits, activation_bits)
    errors = [
        sum(_error(graph_module, reader, observations, scale, shift, widths) for reader in group.readers)
        for scale, shift in candidates
    ]
    best = min(range(len(errors)), key=lambda index: errors[index])
    if errors[best] > (EXPLICIT_GAIN if group.norm is None else 1.0) * errors[0] or best == 0:
        return None
    scale, shift = candidates[best]
    return Smoothing(scale=tuple(scale.tolist()), shift=tuple(shift.tolist()), explicit=group.norm is None)


def _channel_ranges(group: SmoothingGroup, observations: Mapping[str, Observation]) -> tuple[Tensor, Tensor]:
    low = torch.full((group.num_channels,), float("inf"))
    high = -low
    for reader in group.readers:
        seen = observations[reader.site.left.name]
        low.scatter_reduce_(0, reader.channels, seen.low, "amin")
        high.scatter_reduce_(0, reader.channels, seen.high, "amax")
    unread = torch.isinf(low)
    return low.masked_fill(unread, 0.0), high.masked_fill(unread, 0.0)


def _weight_reach(graph_module: fx.GraphModule, group: SmoothingGroup) -> Tensor:
    """The largest absolute weight that each channel meets."""
    reach = torch.zeros(group.num_channels)
    for reader in group.readers:
        columns = reader.site.matrix(_constant(graph_module, reader.site.right.node)).abs().amax(0)
        reach.scatter_reduce_(0, reader.columns, columns, "amax")
    return reach.clamp(min=float(reach.max()) * 1e-5 + 1e-30)


def _normalised(scale: Tensor) -> Tensor:
    """Positive, of geometric mean 1, within bounds."""
    scale = scale.clamp(min=float(scale.max()) * 1e-5 + 1e-30)
    return (scale / scale.log().mean().exp()).clamp(1 / LARGEST_SCALE, LARGEST_SCALE)


EXPLICIT_GAIN = 0.5
"""An explicit division must lower the error to this share of what it was."""

ROWS = 512
"""Sampled rows on which candidates are compared."""


def _error(
    graph_module: fx.GraphModule,
    reader: Reader,
    observations: Mapping[str, Observation],
    scale: Tensor,
    shift: Tensor,
    widths: tuple[int, int],
) -> float:
    """Squared error of a reader's outputs, weighted by the gradients where there are any."""
    site, seen, columns = reader.site, observations[reader.site.left.name], reader.columns
    matrix = site.matrix(_constant(graph_module, site.right.node))
    some = torch.linspace(0, len(seen.left) - 1, min(ROWS, len(seen.left))).long()  # of all images
    rows = seen.left[some]
    moved, scaled = (rows - shift[columns]) / scale[columns], matrix * scale[columns]
    importance = seen.weight[some, None].expand_as(moved)
    inputs = observe_tensor(moved, bit_width=widths[1], signed=False, symmetric=False, importance=importance)
    weights = observe_channels(scaled, 0, bit_width=widths[0])
    error = inputs.fake_quantize(moved) @ weights.fake_quantize(scaled).t() - moved @ scaled.t()
    felt = error if seen.gradient is None else error * seen.gradient[some]
    return float((felt.square() * seen.weight[some, None]).sum())


def _constant(graph_module: fx.GraphModule, node: Any) -> Tensor:
    value = tensor_of(graph_module, node)
    assert value is not None, f"{node} is no constant"
    return value
