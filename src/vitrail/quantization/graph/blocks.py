"""A graph split into blocks of a few layers each, which can be run and trained on their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from vitrail.quantization.graph.ops import QuantizedOp
from vitrail.quantization.graph.runner import GraphRunner

FEWEST_LAYERS = 4
"""Layers of a block at least: a transformer's block."""

MOST_LAYERS = 8
"""Layers of a block within which the next boundary is searched for."""

PROBE_IMAGES = 7
"""A batch size that hardly any other dimension has: a tensor whose first dimension has it holds one entry an image."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive nodes of a graph.

    Attributes:
        nodes: its nodes in order, without constants.
        inputs: earlier nodes that it reads.
        outputs: its nodes that are read after it.
        kept: nodes, its own or earlier ones, that later blocks read.
        ops: its quantised operations.
    """

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    kept: frozenset[fx.Node]
    ops: tuple[QuantizedOp, ...]

    def run(self, runner: GraphRunner, values: Mapping[fx.Node, Any]) -> list[Tensor]:
        """The outputs, from the values of the inputs and of all constants."""
        results = runner.run_nodes(self.nodes, values)
        return [results[node] for node in self.outputs]


def constants(graph_module: fx.GraphModule, batch_size: int, images: Tensor) -> dict[fx.Node, Any]:
    """Values of all nodes that are the same for every batch of one size."""
    runner = GraphRunner(graph_module)
    values: dict[fx.Node, Any] = {}
    for node in runner.nodes:
        if node.target is torch.ops.aten.sym_size.int and node.args[0].op == "placeholder":
            values[node] = batch_size if node.args[1] == 0 else images.shape[node.args[1]]
        elif node.op in ("get_attr", "call_function") and all(other in values for other in node.all_input_nodes):
            values[node] = runner.step(node, values)
    return values


def split_blocks(graph_module: fx.GraphModule, ops: Iterable[QuantizedOp], images: Tensor) -> list[Block]:
    """Blocks of ``FEWEST_LAYERS`` to ``MOST_LAYERS`` quantised layers, split where the fewest tensors are alive.

    Args:
        ops: operations that are quantised.
        images: normalised (n, c, h, w); only the first is run.
    """
    by_node = {op.node: op for op in ops}
    fixed = constants(graph_module, PROBE_IMAGES, images)
    nodes = [node for node in graph_module.graph.nodes if node not in fixed and node.op != "output"]
    places = {node: index for index, node in enumerate(nodes)}
    last = {node: max((places.get(user, len(nodes)) for user in node.users), default=-1) for node in nodes}
    by_image = _by_image(graph_module, images)
    alive = [_alive(nodes, last, index, by_image) for index in range(len(nodes))]
    layers = [node in by_node and by_node[node].has_weight for node in nodes]
    blocks, start = [], 1  # the first node is the image
    while start < len(nodes):
        end = _next_end(start, alive, layers)
        inside = set(nodes[start:end])
        read = {other for node in inside for other in node.all_input_nodes if other in places and other not in inside}
        blocks.append(
            Block(
                nodes=tuple(nodes[start:end]),
                inputs=tuple(sorted(read, key=places.__getitem__)),
                outputs=tuple(node for node in nodes[start:end] if last[node] >= end),
                kept=frozenset(node for node in nodes[:end] if end <= last[node] < len(nodes)),
                ops=tuple(by_node[node] for node in nodes[start:end] if node in by_node),
            )
        )
        start = end
    return blocks


def _alive(nodes: list[fx.Node], last: Mapping[fx.Node, int], index: int, by_image: set[fx.Node]) -> float:
    """The number of tensors that a boundary behind a node keeps; infinity where one has no entry for each image."""
    kept = [node for node in nodes[: index + 1] if last[node] > index]
    return len(kept) if all(node in by_image for node in kept) else float("inf")


def _next_end(start: int, alive: list[float], layers: list[bool]) -> int:
    """The end of the block that starts here."""
    count, best, least = 0, len(alive), float("inf")
    for index in range(start, len(alive)):
        count += layers[index]
        if count > MOST_LAYERS and least < float("inf"):
            return best
        if count >= FEWEST_LAYERS and alive[index] < least:
            best, least = index + 1, alive[index]
            if least == 1:
                return best
    return len(alive)


def _by_image(graph_module: fx.GraphModule, images: Tensor) -> set[fx.Node]:
    """Nodes whose value has one entry for each image."""
    by_image = set()

    def note(node: fx.Node, value: Any) -> None:
        if isinstance(value, Tensor) and value.ndim and len(value) == PROBE_IMAGES:
            by_image.add(node)

    with torch.inference_mode():
        GraphRunner(graph_module, on_value=note).run(images[:1].expand(PROBE_IMAGES, -1, -1, -1))
    return by_image
