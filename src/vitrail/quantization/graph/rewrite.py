"""Rewriting after calibration: every operand of the plan is quantised and dequantised, as runtimes recognise it.

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

from vitrail.quantization.graph.capture import constant
from vitrail.quantization.graph.ops import Operand, QuantizedOp
from vitrail.quantization.graph.prepare import argument, finish
from vitrail.quantization.graph.qdq_ops import DEQUANTIZE, QUANTIZE, FakeQuantize
from vitrail.quantization.plan import QuantizationPlan
from vitrail.quantization.quantizers.kinds import Quantizer
from vitrail.quantization.quantizers.uniform import UniformQuantizer

aten = torch.ops.aten

INT32_MAX = 2**31 - 1


def rewrite(graph_module: fx.GraphModule, ops: Iterable[QuantizedOp], plan: QuantizationPlan) -> None:
    """Quantise, in place, all operations whose operands are in the plan; ``ops`` in the order of the graph."""
    rewriter = _Rewriter(graph_module, plan)
    for op in ops:
        if op.left.name in plan.operands:
            rewriter.rewrite(op)
        elif op.kind == "conv":
            rewriter.protect(op)
    finish(graph_module)


class _Rewriter:
    """State of the rewriting of one graph.

    Attributes:
        qdq_cache: node -> its quantised and dequantised forms, each with its quantiser.
    """

    def __init__(self, graph_module: fx.GraphModule, plan: QuantizationPlan) -> None:
        self.graph_module = graph_module
        self.graph = graph_module.graph
        self.plan = plan
        self.qdq_cache: dict[fx.Node, list[tuple[Quantizer, fx.Node]]] = {}

    def rewrite(self, op: QuantizedOp) -> None:
        with self.graph.inserting_before(op.node):
            # earlier rewrites may have replaced what the operand was found at, so the arguments are read afresh
            left = self.activation(op.node.args[0], op.left)
            if op.kind in ("conv", "conv_transpose"):
                self.convolution(op, left)
            elif op.has_weight:
                self.linear(op, left)
            else:
                op.node.args = (left, self.activation(op.node.args[1], op.right))

    def activation(self, source: Any, operand: Operand) -> fx.Node:
        """The operand after quantise and dequantise, which all consumers with an equal quantiser share."""
        quantizer, known = self.plan.operands[operand.name], self.qdq_cache.setdefault(source, [])
        for other, node in known:
            if other == quantizer:
                return node
        made = (
            self.quantize_dequantize(source, quantizer, operand.name)
            if isinstance(quantizer, UniformQuantizer)
            else self.simulated(source, quantizer, operand.name)
        )
        known.append((quantizer, made))
        return made

    def simulated(self, source: fx.Node, quantizer: Quantizer, name: str) -> fx.Node:
        """Codes that no runtime executes, as one step of the graph."""
        target = self.unused(name)
        self.graph_module.add_submodule(target, FakeQuantize(quantizer))
        return self.graph.call_module(target, (source,))

    def quantize_dequantize(self, source: fx.Node, quantizer: UniformQuantizer, name: str) -> fx.Node:
        scale, zero_point = self.parameters(quantizer, name)
        bounds = (quantizer.quant_min, quantizer.quant_max)
        codes = self.graph.call_function(QUANTIZE, (source, scale, zero_point, 0, *bounds))
        return self.graph.call_function(DEQUANTIZE, (codes, scale, zero_point, 0))

    def linear(self, op: QuantizedOp, left: fx.Node) -> None:
        """x W^T + b as MatMul(x, codes of W^T) - (-b)."""
        node = op.node
        right = self.weight(op, transposed=op.kind == "linear", axis=1)
        result = self.graph.call_function(aten.matmul.default, (left, right))
        bias = self.bias(op)
        if bias is not None:
            negative = self.buffer(f"{op.right.name}:negative_bias", -bias)
            result = self.graph.call_function(aten.sub.Tensor, (result, negative))
        node.replace_all_uses_with(result)

    def convolution(self, op: QuantizedOp, left: fx.Node) -> None:
        node, values = op.node, self.bias(op)
        bias: fx.Node | None = None
        right = self.weight(op, transposed=False, axis=op.right.axis or 0)
        output = None if op.output is None else self.plan.operands.get(op.output.name)
        if values is not None and output is not None:
            bias = self.integer_bias(op, values)
        elif values is not None:
            bias = self.buffer(f"{op.right.name}:bias", values)
        node.args = (left, right, bias, *node.args[3:])
        node.kwargs = {name: value for name, value in node.kwargs.items() if name not in ("weight", "bias")}
        if op.output is None or not isinstance(output, UniformQuantizer):
            return
        users = list(node.users)
        with self.graph.inserting_before(node.next):
            result = self.quantize_dequantize(node, output, op.output.name)
        for user in users:
            user.replace_input_with(node, result)
        self.qdq_cache[result] = [(output, result)]

    def weight(self, op: QuantizedOp, *, transposed: bool, axis: int) -> fx.Node:
        """A layer's weight after quantisation: codes, dequantised, or its values if only simulated."""
        quantizer, weight = self.plan.operands[op.right.name], constant(self.graph_module, op.right.node)
        if not isinstance(quantizer, UniformQuantizer):
            left = quantizer.fake_quantize(weight)
            return self.buffer(f"{op.right.name}:simulated", left.t().contiguous() if transposed else left)
        codes = quantizer.quantize(weight)
        if op.right.name in self.plan.rounding:
            codes = self.plan.rounding[op.right.name].codes(codes)
        return self.stored(codes.t().contiguous() if transposed else codes, quantizer, op.right.name, axis)

    def bias(self, op: QuantizedOp) -> Tensor | None:
        """A layer's bias, corrected if the plan says so."""
        rounding = self.plan.rounding.get(op.right.name)
        if rounding is not None and rounding.bias is not None:
            return rounding.bias.clone()
        return op.constants(self.graph_module)[1]

    def protect(self, op: QuantizedOp) -> None:
        """Keep a float convolution float: ONNX Runtime quantises, per tensor, one that stands between codes.

        A subtraction behind it hides the codes that follow, at the price of one cheap pass.
        """
        node = op.node
        if not any(node.args[0] is made for known in self.qdq_cache.values() for _, made in known):
            return
        with self.graph.inserting_before(node):
            weight = constant(self.graph_module, argument(node, 1, "weight"))
            bias_node = argument(node, 2, "bias")
            bias = (
                torch.zeros(weight.shape[0], device=weight.device)
                if bias_node is None
                else constant(self.graph_module, bias_node)
            )
            negative = self.buffer(f"{op.right.name}:negative_bias", -bias.view(1, -1, 1, 1))
        if bias_node is not None:
            node.args = (*node.args[:2], None, *node.args[3:])
            node.kwargs = {name: value for name, value in node.kwargs.items() if name != "bias"}
        users = list(node.users)
        with self.graph.inserting_before(node.next):
            result = self.graph.call_function(aten.sub.Tensor, (node, negative))
        for user in users:
            user.replace_input_with(node, result)

    def integer_bias(self, op: QuantizedOp, bias: Tensor) -> fx.Node:
        """Stored as int32 in units of input scale x weight scale."""
        inputs, weights = self.plan.operands[op.left.name], self.plan.operands[op.right.name]
        assert isinstance(inputs, UniformQuantizer)
        assert isinstance(weights, UniformQuantizer)
        scale = weights.scale.to(bias.device) * inputs.scale
        codes = (bias.double() / scale.double()).round().clamp(-INT32_MAX, INT32_MAX).to(torch.int32)
        name = f"{op.right.name}:bias"
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
        scale, zero_point = (value.to(device, copy=True) for value in (quantizer.scale, quantizer.zero_point))
        return self.buffer(f"{name}:scale", scale), self.buffer(f"{name}:zero_point", zero_point)

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
