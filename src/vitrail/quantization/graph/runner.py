"""One way to run a graph: node by node, with hooks around the operations that are quantised."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx

from vitrail.core.progress import track
from vitrail.quantization.graph.ops import QuantizedOp
from vitrail.quantization.quantizers.kinds import Quantizer

Layer = tuple[Tensor, Tensor | None]
"""A weight and a bias."""

Before = Callable[[QuantizedOp, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor | None]]
"""From an operation, its left and right factor and its bias to those that it is computed with."""

After = Callable[[QuantizedOp, Tensor, Tensor, Tensor], Tensor]
"""From an operation, its left and right factor and its output to the output that later nodes read."""


class GraphRunner:
    """Runs a prepared graph, or some of its nodes; values that no later node reads are dropped.

    Args:
        ops: operations that the hooks are called for.
        before, after: hooks around each of them; None changes nothing.
        on_value: hook that gets every node and its value.
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        ops: Iterable[QuantizedOp] = (),
        *,
        before: Before | None = None,
        after: After | None = None,
        on_value: Callable[[fx.Node, Any], object] | None = None,
    ) -> None:
        self.graph_module = graph_module
        self.ops = {op.node: op for op in ops}
        self.before, self.after, self.on_value = before, after, on_value
        self.nodes = list(graph_module.graph.nodes)
        self.last_read = _last_read(self.nodes)

    def run(self, images: Tensor) -> Tensor:
        """Normalised images (n, c, h, w) to the output of the model."""
        values: dict[fx.Node, Any] = {}
        for node in self.nodes:
            if node.op == "output":
                break
            values[node] = images if node.op == "placeholder" else self.step(node, values)
            if self.on_value is not None:
                self.on_value(node, values[node])
            for other in self.last_read.get(node, ()):
                del values[other]
        output = fx.node.map_arg(self.nodes[-1].args[0], values.__getitem__)
        result: Tensor = self.graph_module.graph.process_outputs(output)
        return result

    def run_nodes(self, nodes: Iterable[fx.Node], values: Mapping[fx.Node, Any]) -> dict[fx.Node, Any]:
        """The given values and those of ``nodes``, which read them and each other, in order."""
        results = dict(values)
        for node in nodes:
            results[node] = self.step(node, results)
        return results

    def step(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        """The value of one node, from those that it reads."""
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.graph_module)
        op = self.ops.get(node)
        if op is None:
            args: Any = fx.node.map_arg(node.args, values.__getitem__)
            kwargs: Any = fx.node.map_arg(node.kwargs, values.__getitem__)
            return node.target(*args, **kwargs)  # type: ignore[operator]
        arguments: Any = fx.node.map_arg(op.arguments, values.__getitem__)
        left, right, bias = arguments if self.before is None else self.before(op, *arguments)
        output = op.compute(left, right, bias)
        return output if self.after is None else self.after(op, left, right, output)


def fake_quantized(
    graph_module: fx.GraphModule,
    ops: Iterable[QuantizedOp],
    operands: Mapping[str, Quantizer],
    *,
    activation: Callable[[str, Tensor], Tensor] | None = None,
    layer: Callable[[QuantizedOp, Tensor, Tensor | None], Layer] | None = None,
) -> GraphRunner:
    """A runner of the float graph that computes what the rewritten graph does.

    Args:
        operands: operand name -> quantiser.
        activation: replaces an activation, by operand name; by default with its quantiser.
        layer: replaces the weight and the bias of an operation; by default the weight, rounded to the nearest codes.
    """
    by_name = activation or (lambda name, x: operands[name].fake_quantize(x))
    nearest = layer or (lambda op, weight, bias: (operands[op.right.name].fake_quantize(weight), bias))

    def before(
        op: QuantizedOp, left: Tensor, right: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        left = by_name(op.left.name, left)
        return (left, *nearest(op, right, bias)) if op.has_weight else (left, by_name(op.right.name, right), bias)

    def after(op: QuantizedOp, _left: Tensor, _right: Tensor, output: Tensor) -> Tensor:
        return output if op.output is None or op.output.name not in operands else by_name(op.output.name, output)

    return GraphRunner(graph_module, ops, before=before, after=after)


def run_side_by_side(
    exact: GraphRunner,
    quantized: GraphRunner,
    batches: Sequence[Tensor],
    visit: Callable[[QuantizedOp, list[Tensor], list[Tensor]], None],
    *,
    progress: bool = False,
) -> None:
    """Run a float and a quantised model together, node by node, each on all batches.

    Args:
        exact, quantized: runners of the same graph.
        batches: normalised images (n, c, h, w).
        visit: called before each layer in the order of the graph, with its inputs in the float and in the quantised
            model, by batch; it may set the weight and bias that ``quantized`` has from this layer on.
    """
    values: dict[fx.Node, list[Any]] = {}
    own: dict[fx.Node, list[Any]] = {}  # of the quantised model: the very same list where nothing is quantised yet
    for node in track(exact.nodes[:-1], "Rounding weights", progress=progress):
        op = quantized.ops.get(node)
        if node.op == "placeholder":
            values[node] = own[node] = list(batches)
        else:
            values[node] = _all_batches(exact, node, values, len(batches))
            if op is not None and op.has_weight:
                visit(op, values[op.arguments[0]], own[op.arguments[0]])
            same = op is None and all(own[other] is values[other] for other in node.all_input_nodes)
            own[node] = values[node] if same else _all_batches(quantized, node, own, len(batches))
        for other in exact.last_read.get(node, ()):
            del values[other], own[other]


def _all_batches(runner: GraphRunner, node: fx.Node, values: Mapping[fx.Node, list[Any]], count: int) -> list[Any]:
    read = node.all_input_nodes
    return [runner.step(node, {other: values[other][index] for other in read}) for index in range(count)]


def _last_read(nodes: list[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """For each node, the nodes whose value no node after it reads."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        last[node] = node
        for other in node.all_input_nodes:
            last[other] = node
    reads: dict[fx.Node, list[fx.Node]] = {}
    for node, reader in last.items():
        reads.setdefault(reader, []).append(node)
    return reads
