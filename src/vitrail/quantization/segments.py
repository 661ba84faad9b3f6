"""A graph cut into stretches of a few layers each, which can be run and trained on their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from vitrail.quantization.graph import tensor_of
from vitrail.quantization.sites import Site

FEWEST_LAYERS = 4
"""Layers of a segment at least: a transformer's block."""

MOST_LAYERS = 8
"""The next cut is looked for up to here."""

PROBE_IMAGES = 7
"""A batch size that hardly any other dimension has: what has it first holds one entry an image."""

Product = Callable[[Site, Tensor, Any], Tensor]
"""Computes a quantised product from its two arguments."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Consecutive nodes of a graph.

    Attributes:
        nodes: in order; none of them is a constant.
        inputs: nodes before it that it reads.
        outputs: its nodes that are read after it.
        kept: nodes, its own or earlier ones, that segments after it read.
        sites: its products.
    """

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    kept: frozenset[fx.Node]
    sites: tuple[Site, ...]

    def run(self, values: Mapping[fx.Node, Any], product: Product | None = None) -> list[Tensor]:
        """The outputs.

        Args:
            values: of the inputs and of all constants.
            product: is called for the segment's sites, in place of the operation.
        """
        known = dict(values)
        sites = {} if product is None else {site.node: site for site in self.sites}
        for node in self.nodes:
            args: Any = fx.node.map_arg(node.args, known.__getitem__)
            kwargs: Any = fx.node.map_arg(node.kwargs, known.__getitem__)
            if product is not None and node in sites:
                known[node] = product(sites[node], args[0], args[1])
            else:
                known[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return [known[node] for node in self.outputs]


def constants(graph_module: fx.GraphModule, batch_size: int, images: Tensor) -> dict[fx.Node, Any]:
    """Values of all nodes that are the same for every batch of one size."""
    values: dict[fx.Node, Any] = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            values[node] = tensor_of(graph_module, node)
        elif node.target is torch.ops.aten.sym_size.int and node.args[0].op == "placeholder":
            values[node] = batch_size if node.args[1] == 0 else images.shape[node.args[1]]
        elif node.op == "call_function" and all(other in values for other in node.all_input_nodes):
            args: Any = fx.node.map_arg(node.args, values.__getitem__)
            kwargs: Any = fx.node.map_arg(node.kwargs, values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    return values


def cut(graph_module: fx.GraphModule, sites: Iterable[Site], images: Tensor) -> list[Segment]:
    """Segments of ``FEWEST_LAYERS`` to ``MOST_LAYERS`` quantised layers, cut where the fewest tensors are alive.

    Args:
        sites: the products that are quantised.
        images: some, (n, c, h, w).
    """
    wanted = {site.node: site for site in sites}
    fixed = constants(graph_module, PROBE_IMAGES, images)
    nodes = [node for node in graph_module.graph.nodes if node not in fixed and node.op != "output"]
    places = {node: index for index, node in enumerate(nodes)}
    last = {node: max((places.get(user, len(nodes)) for user in node.users), default=-1) for node in nodes}
    by_image = _by_image(graph_module, images)
    alive = [_alive(nodes, last, index, by_image) for index in range(len(nodes))]
    layers = [node in wanted and wanted[node].weighted for node in nodes]
    segments, start = [], 1  # the first node is the image
    while start < len(nodes):
        end = _next_cut(start, alive, layers)
        inside = set(nodes[start:end])
        read = {other for node in inside for other in node.all_input_nodes if other in places and other not in inside}
        segments.append(
            Segment(
                nodes=tuple(nodes[start:end]),
                inputs=tuple(sorted(read, key=places.__getitem__)),
                outputs=tuple(node for node in nodes[start:end] if last[node] >= end),
                kept=frozenset(node for node in nodes[:end] if end <= last[node] < len(nodes)),
                sites=tuple(wanted[node] for node in nodes[start:end] if node in wanted),
            )
        )
        start = end
    return segments


def _alive(nodes: list[fx.Node], last: Mapping[fx.Node, int], index: int, by_image: set[fx.Node]) -> float:
    """How many tensors a cut behind a node would have to keep; infinity where one is not kept image by image."""
    kept = [node for node in nodes[: index + 1] if last[node] > index]
    return len(kept) if all(node in by_image for node in kept) else float("inf")


def _next_cut(start: int, alive: list[float], layers: list[bool]) -> int:
    """The end of the segment that starts here."""
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
    """Nodes whose value has one entry an image."""
    found = set()

    class Probe(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor) and value.ndim and len(value) == PROBE_IMAGES:
                found.add(n)
            return value

    with torch.inference_mode():
        Probe(graph_module).run(images[:1].expand(PROBE_IMAGES, -1, -1, -1))
    return found
