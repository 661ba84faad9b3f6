"""Norms whose output goes only into layers, so that a scaling between them can be folded into both."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from vitrail.quantization.graph.capture import tensor_of
from vitrail.quantization.graph.ops import SHAPE_ONLY, QuantizedOp
from vitrail.quantization.graph.prepare import argument
from vitrail.quantization.graph.runner import GraphRunner

aten = torch.ops.aten

NORMS = {aten.layer_norm.default: (2, 3), aten.batch_norm.default: (1, 2), aten.group_norm.default: (2, 3)}
"""Norm -> where its scale and its offset stand among its arguments."""


@dataclass(frozen=True)
class Reader:
    """A layer that reads a norm's output.

    Attributes:
        channels: index of the norm's channel for each input channel, (inputs,).
        padded: zeros are added between the norm and the layer, or by the layer itself.
    """

    op: QuantizedOp
    channels: Tensor
    padded: bool

    @property
    def columns(self) -> Tensor:
        """The norm's channel for each column of the layer's matrix."""
        return self.channels.repeat_interleave(self.op.weight_shape[2:].numel())


@dataclass(frozen=True)
class SmoothingGroup:
    """A norm whose output is read by layers only, which undo a scaling of it; or one layer alone.

    Attributes:
        name: name of the first reader's input, which stands for the group in a plan.
        norm: node of the norm; None for a layer whose input is divided explicitly.
        can_shift: the output may have an offset: no zeros are padded to it.
    """

    name: str
    norm: fx.Node | None
    num_channels: int
    readers: tuple[Reader, ...]
    can_shift: bool


def find_norm_groups(graph_module: fx.GraphModule, ops: Iterable[QuantizedOp], images: Tensor) -> list[SmoothingGroup]:
    """All norms whose output goes only into dense layers, found by tracing channel numbers through the graph.

    Args:
        images: (n, c, h, w); only the shapes count.
    """
    values: dict[fx.Node, Any] = {}
    with torch.inference_mode():
        GraphRunner(graph_module, on_value=values.__setitem__).run(images[:1])
    layers = {op.node: op for op in ops if op.dense}
    groups = []
    for node in graph_module.graph.nodes:
        if node.target not in NORMS or not _affine(graph_module, node):
            continue
        output = values[node]
        axis = -1 if node.target is aten.layer_norm.default else 1
        if node.target is aten.layer_norm.default and len(node.args[1]) != 1:
            continue
        count = output.shape[axis]
        shape = [1] * output.ndim
        shape[axis] = -1
        marks = torch.arange(1, count + 1, dtype=torch.float32).view(shape).expand(output.shape)
        readers = _follow(node, marks, layers, values)
        if readers:
            biased = all(reader.op.kind != "matmul" for reader in readers)
            groups.append(
                SmoothingGroup(
                    name=readers[0].op.left.name,
                    norm=node,
                    num_channels=count,
                    readers=tuple(readers),
                    can_shift=biased and not any(reader.padded for reader in readers),
                )
            )
    return groups


def explicit_group(op: QuantizedOp) -> SmoothingGroup | None:
    """A dense layer alone; None if its input or its weight has other readers."""
    source = op.node.args[0]
    if not op.dense or not isinstance(source, fx.Node) or len(source.users) != 1 or len(op.right.node.users) != 1:
        return None
    count = op.weight_shape[0 if op.kind == "matmul" else 1]
    reader = Reader(op=op, channels=torch.arange(count), padded=_pads(op))
    return SmoothingGroup(name=op.left.name, norm=None, num_channels=count, readers=(reader,), can_shift=False)


def _affine(graph_module: fx.GraphModule, norm: fx.Node) -> bool:
    """Both of the norm's parameters exist, and no other node reads them."""
    places = NORMS[norm.target]  # type: ignore[index]
    nodes = [argument(norm, place, name) for place, name in zip(places, ("weight", "bias"), strict=True)]
    return all(tensor_of(graph_module, node) is not None and len(node.users) == 1 for node in nodes)


def _follow(
    start: fx.Node, marks: Tensor, layers: Mapping[fx.Node, QuantizedOp], values: Mapping[fx.Node, Any]
) -> list[Reader] | None:
    """The layers that all of ``start`` goes into; None if something else reads it, or channels get mixed."""
    readers: list[Reader] = []
    pending: list[tuple[fx.Node, Any]] = [(start, marks)]
    while pending:
        node, value = pending.pop()
        for user in node.users:
            if user in layers and user.args[0] is node:
                reader = _reader(layers[user], value)
                if reader is None:
                    return None
                readers.append(reader)
            elif user.target is operator.getitem or getattr(user.target, "overloadpacket", None) in SHAPE_ONLY:
                fetch = lambda other: value if other is node else values[other]  # noqa: E731, B023
                args, kwargs = fx.node.map_arg(user.args, fetch), fx.node.map_arg(user.kwargs, fetch)
                pending.append((user, user.target(*args, **kwargs)))  # type: ignore[operator]
            elif user.op != "output" and not user.users:
                continue
            else:
                return None
    return readers


def _reader(op: QuantizedOp, marks: Tensor) -> Reader | None:
    """The layer, if each of its input channels is one of the norm's everywhere, or zeros of a padding."""
    lines = marks.movedim(1 if op.kind == "conv" else -1, 0).flatten(1)
    numbers = lines.amax(1)
    alike = bool(((lines == numbers[:, None]) | (lines == 0)).all()) and bool((numbers > 0).all())
    if not alike or len(op.right.node.users) != 1:
        return None
    return Reader(op=op, channels=numbers.long() - 1, padded=_pads(op) or bool((lines == 0).any()))


def _pads(op: QuantizedOp) -> bool:
    padding = argument(op.node, 4, "padding", 0) if op.kind == "conv" else 0
    return any(padding) if isinstance(padding, list | tuple) else bool(padding)
