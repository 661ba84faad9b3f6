"""The float and the quantised model side by side, operation by operation, on all calibration images at once.

At each product the quantised inputs are what the layers before it really give, so that its weights can make up for
their errors. Only the values that are still needed are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, fx

from vitrail.quantization.calibration import BATCH_SIZE
from vitrail.quantization.graph import tensor_of
from vitrail.quantization.nonuniform import Quantizer
from vitrail.quantization.prepare import argument
from vitrail.quantization.sites import Site

Values = list[Any]
"""What a node gives, for each batch."""

Decide = Callable[[Site, list[Tensor], list[Tensor]], tuple[Tensor, Tensor | None]]
"""From a product with a weight, its float inputs and its quantised ones (by batch) to its weight and bias."""


def walk(
    graph_module: fx.GraphModule,
    sites: Mapping[fx.Node, Site],
    operands: Mapping[str, Quantizer],
    images: Tensor,
    decide: Decide,
    *,
    progress: bool = False,
) -> None:
    """Run both models, asking ``decide`` for the weights of each quantised product, in the order of the graph.

    Args:
        sites: the products that are quantised, by node.
        operands: operand name -> quantiser; weights' are not read.
        images: normalised (n, c, h, w).
    """
    walker = _Walker(graph_module, sites, operands, decide)
    nodes = list(graph_module.graph.nodes)
    forget = _last_uses(nodes)
    with torch.inference_mode():
        for node in track(nodes, "rounding weights", disable=not progress):
            walker.step(node, list(images.split(BATCH_SIZE)))
            for spent in forget.get(node, ()):
                walker.forget(spent)


class _Walker:
    def __init__(
        self,
        graph_module: fx.GraphModule,
        sites: Mapping[fx.Node, Site],
        operands: Mapping[str, Quantizer],
        decide: Decide,
    ) -> None:
        self.graph_module = graph_module
        self.sites = sites
        self.operands = operands
        self.decide = decide
        self.exact: dict[fx.Node, Values] = {}
        self.quantized: dict[fx.Node, Values] = {}  # the very same list where nothing is quantised yet
        self.num_batches = 0

    def step(self, node: fx.Node, batches: list[Tensor]) -> None:
        self.num_batches = len(batches)
        if node.op == "placeholder":
            self.exact[node] = self.quantized[node] = batches
        elif node.op == "get_attr":
            self.exact[node] = self.quantized[node] = [tensor_of(self.graph_module, node)] * len(batches)
        elif node.op == "call_function":
            self.exact[node] = self._call(node, self.exact)
            if node in self.sites:
                self.quantized[node] = self._product(self.sites[node])
            elif all(self.quantized[other] is self.exact[other] for other in node.all_input_nodes):
                self.quantized[node] = self.exact[node]
            else:
                self.quantized[node] = self._call(node, self.quantized)

    def forget(self, node: fx.Node) -> None:
        self.exact.pop(node, None)
        self.quantized.pop(node, None)

    def _call(self, node: fx.Node, values: Mapping[fx.Node, Values]) -> Values:
        results = []
        for index in range(self.num_batches):
            batch = {other: values[other][index] for other in node.all_input_nodes}
            args: Any = fx.node.map_arg(node.args, batch.__getitem__)
            kwargs: Any = fx.node.map_arg(node.kwargs, batch.__getitem__)
            results.append(node.target(*args, **kwargs))  # type: ignore[operator]
        return results

    def _product(self, site: Site) -> Values:
        node = site.node
        left = self._through(site.left.name, self.quantized[node.args[0]])  # type: ignore[index]
        if not site.weighted:
            right = self._through(site.right.name, self.quantized[node.args[1]])  # type: ignore[index]
            return [node.target(a, b) for a, b in zip(left, right, strict=True)]  # type: ignore[operator]
        weight, bias = self.decide(site, self.exact[node.args[0]], left)  # type: ignore[index]
        if site.kind == "matmul":
            results = [x @ weight if bias is None else x @ weight + bias for x in left]
        else:
            options = {k: v for k, v in node.kwargs.items() if k not in ("weight", "bias")}
            results = [node.target(x, weight, bias, *node.args[3:], **options) for x in left]  # type: ignore[operator]
        if site.output is not None and site.output.name in self.operands:
            return self._through(site.output.name, results)
        return results

    def _through(self, name: str, values: Values) -> Values:
        return [self.operands[name].fake_quantize(x) for x in values]


def layer_bias(graph_module: fx.GraphModule, site: Site) -> Tensor | None:
    """The bias of a layer; None if it has none."""
    return None if site.kind == "matmul" else tensor_of(graph_module, argument(site.node, 2, "bias"))


def _last_uses(nodes: list[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """For each node, the nodes whose value nobody reads after it."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        last[node] = node
        for other in node.all_input_nodes:
            last[other] = node
    uses: dict[fx.Node, list[fx.Node]] = {}
    for node, user in last.items():
        uses.setdefault(user, []).append(node)
    return uses
