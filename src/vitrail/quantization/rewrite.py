"""Graph surgery after calibration: every planned operand goes through codes, in the form that runtimes recognise.

The result simulates what an exported file computes, and is also what is exported: quantise and dequantise operations
become QuantizeLinear and DequantizeLinear one to one. Three rules decide whether a runtime really uses integers:

* the bias of a matrix product is written as ``- (-bias)``: ONNX Runtime would fuse ``+ bias`` into a float Gemm;
* a convolution's output goes through codes too, and its bias is stored as int32 with scale input x weight, since ONNX
  Runtime's integer convolution takes and gives nothing else;
* dequantise operations stand directly before the product, so a key is transposed before it is quantised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from vitrail.quantization.graph import tensor_of
from vitrail.quantization.nonuniform import FakeQuantize, Quantizer
from vitrail.quantization.operations import DEQUANTIZE, QUANTIZE
from vitrail.quantization.plan import QuantizationPlan
from vitrail.quantization.prepare import argument, finish
from vitrail.quantization.quantizers import UniformQuantizer
from vitrail.quantization.sites import Operand, Site

aten = torch.ops.aten

INT32_MAX = 2**31 - 1


def rewrite(graph_module: fx.GraphModule, sites: Iterable[Site], plan: QuantizationPlan) -> None:
    """Quantise, in place, all operations whose operands are in the plan; ``sites`` in the order of the graph."""
    rewriter = _Rewriter(graph_module, plan)
    for site in sites:
        if site.left.name in plan.operands:
            rewriter.rewrite(site)
        elif site.kind == "conv":
            rewriter.protect(site)
    finish(graph_module)


class _Rewriter:
    """Holds what the operations of one graph share: trips through codes that are already made, names in use."""

    def __init__(self, graph_module: fx.GraphModule, plan: QuantizationPlan) -> None:
        self.graph_module = graph_module
        self.graph = graph_module.graph
        self.plan = plan
        self.trips: dict[tuple[fx.Node, Quantizer], fx.Node] = {}

    def rewrite(self, site: Site) -> None:
        with self.graph.inserting_before(site.node):
            # earlier rewrites may have replaced what the operand was found at, so the arguments are read afresh
            left = self.activation(site.node.args[0], site.left)
            if site.kind in ("conv", "conv_transpose"):
                self.convolution(site, left)
            elif site.weighted:
                self.linear(site, left)
            else:
                site.node.args = (left, self.activation(site.node.args[1], site.right))

    def activation(self, source: Any, operand: Operand) -> fx.Node:
        """The operand after a trip through codes; consumers with the same quantiser share one trip."""
        quantizer = self.plan.operands[operand.name]
        if (source, quantizer) not in self.trips:
            self.trips[source, quantizer] = (
                self.round_trip(source, quantizer, operand.name)
                if isinstance(quantizer, UniformQuantizer)
                else self.simulated(source, quantizer, operand.name)
            )
        return self.trips[source, quantizer]

    def simulated(self, source: fx.Node, quantizer: Quantizer, name: str) -> fx.Node:
        """Codes that no runtime knows: a step of the graph that leaves what they would."""
        target = self.unused(name)
        self.graph_module.add_submodule(target, FakeQuantize(quantizer))
        return self.graph.call_module(target, (source,))

    def round_trip(self, source: fx.Node, quantizer: UniformQuantizer, name: str) -> fx.Node:
        scale, zero_point = self.parameters(quantizer, name)
        bounds = (quantizer.quant_min, quantizer.quant_max)
        codes = self.graph.call_function(QUANTIZE, (source, scale, zero_point, 0, *bounds))
        return self.graph.call_function(DEQUANTIZE, (codes, scale, zero_point, 0))

    def linear(self, site: Site, left: fx.Node) -> None:
        """x W^T + b as MatMul(x, codes of W^T) - (-b)."""
        node = site.node
        right = self.weight(site, transposed=site.kind == "linear", axis=1)
        result = self.graph.call_function(aten.matmul.default, (left, right))
        bias = self.bias(site)
        if bias is not None:
            negative = self.buffer(f"{site.right.name}:negative_bias", -bias)
            result = self.graph.call_function(aten.sub.Tensor, (result, negative))
        node.replace_all_uses_with(result)

    def convolution(self, site: Site, left: fx.Node) -> None:
        node, values = site.node, self.bias(site)
        bias: fx.Node | None = None
        right = self.weight(site, transposed=False, axis=site.right.axis or 0)
        output = None if site.output is None else self.plan.operands.get(site.output.name)
        if values is not None and output is not None:
            bias = self.integer_bias(site, values)
        elif values is not None:
            bias = self.buffer(f"{site.right.name}:bias", values)
        node.args = (left, right, bias, *node.args[3:])
        node.kwargs = {name: value for name, value in node.kwargs.items() if name not in ("weight", "bias")}
        if site.output is None or not isinstance(output, UniformQuantizer):
            return
        users = list(node.users)
        with self.graph.inserting_before(node.next):
            result = self.round_trip(node, output, site.output.name)
        for user in users:
            user.replace_input_with(node, result)
        self.trips[result, output] = result

    def weight(self, site: Site, *, transposed: bool, axis: int) -> fx.Node:
        """A layer's weight after quantisation: codes and where they lie, or what is left of it if only simulated."""
        quantizer, weight = self.plan.operands[site.right.name], self.constant(site.right.node)
        if not isinstance(quantizer, UniformQuantizer):
            left = quantizer.fake_quantize(weight)
            return self.buffer(f"{site.right.name}:simulated", left.t().contiguous() if transposed else left)
        codes = quantizer.quantize(weight)
        if site.right.name in self.plan.rounded:
            codes = self.plan.rounded[site.right.name].codes(codes)
        return self.stored(codes.t().contiguous() if transposed else codes, quantizer, site.right.name, axis)

    def bias(self, site: Site) -> Tensor | None:
        """A layer's bias, corrected if the plan says so."""
        rounded = self.plan.rounded.get(site.right.name)
        if rounded is not None and rounded.bias is not None:
            return torch.tensor(rounded.bias)
        node = None if site.kind == "matmul" else argument(site.node, 2, "bias")
        return None if node is None else self.constant(node)

    def protect(self, site: Site) -> None:
        """Keep a float convolution float: ONNX Runtime quantises, per tensor, one that stands between codes.

        A subtraction behind it hides the codes that follow, at the price of one cheap pass.
        """
        node = site.node
        if node.args[0] not in self.trips.values():
            return
        with self.graph.inserting_before(node):
            weight = self.constant(argument(node, 1, "weight"))
            bias_node = argument(node, 2, "bias")
            bias = torch.zeros(weight.shape[0], device=weight.device) if bias_node is None else self.constant(bias_node)
            negative = self.buffer(f"{site.right.name}:negative_bias", -bias.view(1, -1, 1, 1))
        if bias_node is not None:
            node.args = (*node.args[:2], None, *node.args[3:])
            node.kwargs = {name: value for name, value in node.kwargs.items() if name != "bias"}
        users = list(node.users)
        with self.graph.inserting_before(node.next):
            result = self.graph.call_function(aten.sub.Tensor, (node, negative))
        for user in users:
            user.replace_input_with(node, result)

    def integer_bias(self, site: Site, bias: Tensor) -> fx.Node:
        """Stored as int32 in units of input scale x weight scale."""
        inputs, weights = self.plan.operands[site.left.name], self.plan.operands[site.right.name]
        assert isinstance(inputs, UniformQuantizer)
        assert isinstance(weights, UniformQuantizer)
        scale = weights.parameters(bias.device)[0] * inputs.scale[0]
        codes = (bias.double() / scale.double()).round().clamp(-INT32_MAX, INT32_MAX).to(torch.int32)
        name = f"{site.right.name}:bias"
        nodes = (self.buffer(name, codes), self.buffer(f"{name}_scale", scale))
        zero_point = self.buffer(f"{name}_zero_point", torch.zeros_like(codes))
        return self.graph.call_function(DEQUANTIZE, (*nodes, zero_point, 0))

    def stored(self, codes: Tensor, quantizer: UniformQuantizer, name: str, axis: int) -> fx.Node:
        """Codes as a constant of the graph, dequantised where they are used."""
        scale, zero_point = self.parameters(quantizer, name, codes.device)
        return self.graph.call_function(DEQUANTIZE, (self.buffer(f"{name}:codes", codes), scale, zero_point, axis))

    def parameters(
        self, quantizer: UniformQuantizer, name: str, device: torch.device | str = "cpu"
    ) -> tuple[fx.Node, fx.Node]:
        scale, zero_point = quantizer.parameters(device)
        return self.buffer(f"{name}:scale", scale), self.buffer(f"{name}:zero_point", zero_point)

    def constant(self, node: Any) -> Tensor:
        value = tensor_of(self.graph_module, node)
        assert value is not None, f"{node} is no constant"
        return value

    def buffer(self, name: str, value: Tensor) -> fx.Node:
        """A new constant of the graph, read here."""
        target = self.unused(name)
        self.graph_module.register_buffer(target, value)
        return self.graph.get_attr(target)

    def unused(self, name: str) -> str:
        """``name`` as an attribute that the graph does not have yet."""
        target = unique = re.sub(r"\W", "_", name)
        count = 1
        while hasattr(self.graph_module, unique):
            count += 1
            unique = f"{target}_{count}"
        return unique
