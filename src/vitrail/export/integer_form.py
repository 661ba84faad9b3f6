"""The same numbers in the form that runtimes read right and run fastest: the last pass over a quantised ONNX graph.

* Codes around 0 are written without a zero point. ONNX Runtime 1.31 turns signed codes with one into unsigned ones, for
  which it has no fast kernel as right factor; at opset 21 that change fails (``output_dtype``) if a
  transposition is next to them. A left factor keeps its zero point: there only unsigned is fast.
* A key is turned after it went through codes, not before: OpenVINO then reads it turned inside its attention kernel.
* A token that is repeated for every image is written without the batch size: OpenVINO 2026.4 would take it from the
  first convolution's output and then drop that convolution's bias, if it is quantised (14 dB instead of 49 for a ViT).
* A reduction keeps the dimensions that it reduces, and a Squeeze drops them: OpenVINO 2026.4 computes what follows a
  reduction together with it, up to the codes, and then takes a value for each channel at the wrong place (4 dB instead
  of 36 where a mean over tokens is scaled by channel). It reads a mean over height and width right.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

OPSET = 21
"""The first with 4-bit tensors, and with codes that need no zero point to be signed. The translation to ONNX is asked
for 20 all the same: at 21 it writes a group norm as an operation that ONNX Runtime takes apart into 26 others."""

PLANE = ({2, 3}, {-2, -1})
"""Axes of height and width."""


def to_integer_form(model: onnx.ModelProto) -> None:
    """Rewrite, in place, a graph whose integers were written by :mod:`vitrail.export.lowering`."""
    form = _IntegerForm(model.graph)
    form.repeat_without_shapes()
    form.squeeze_apart()
    form.turn_after_codes()
    form.drop_zero_points()
    form.finish()
    for domain in model.opset_import:
        if not domain.domain:
            domain.version = OPSET


class _IntegerForm:
    """One graph, with the node that makes each value and the nodes that read it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes = list(graph.node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)

    def repeat_without_shapes(self) -> None:
        """Concat(Expand(constant, shape), x) -> Concat(0 x (a token of x) + constant, x)."""
        for concat in [node for node in self.nodes if node.op_type == "Concat"]:
            for index, name in enumerate(concat.input):
                expand = self.makers.get(name)
                others = [other for other in concat.input if other not in self.constants and other != name]
                token = self.constants.get(expand.input[0]) if expand is not None else None
                axis = next(a.i for a in concat.attribute if a.name == "axis")
                if expand is None or expand.op_type != "Expand" or token is None or not others or axis != 1:
                    continue
                if len(token.dims) < 2 or token.dims[0] != 1:
                    continue
                concat.input[index] = self.repeated(token, others[0], concat)

    def repeated(self, token: TensorProto, like: str, before: NodeProto) -> str:
        """``token`` (1, 1, ...) once for every image of ``like`` (b, n, ...)."""
        names = [f"{token.name}_{role}" for role in ("from", "to", "axis", "zero", "first", "none", "repeated")]
        values: list[NDArray[Any]] = [*(np.array([i], np.int64) for i in (0, 1, 1)), np.array(0, np.float32)]
        for name, value in zip(names, values, strict=False):
            self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.insert(before, helper.make_node("Slice", [like, *names[:3]], [names[4]], name=names[4]))
        self.insert(before, helper.make_node("Mul", [names[4], names[3]], [names[5]], name=names[5]))
        self.insert(before, helper.make_node("Add", [names[5], token.name], [names[6]], name=names[6]))
        return names[6]

    def squeeze_apart(self) -> None:
        """Reduce without its dimensions -> Reduce, Squeeze."""
        for reduce in [node for node in self.nodes if node.op_type.startswith("Reduce") and len(node.input) == 2]:
            keeps = next((a for a in reduce.attribute if a.name == "keepdims"), None)
            axes = self.constants.get(reduce.input[1])
            if keeps is None or keeps.i or axes is None:
                continue
            if reduce.op_type == "ReduceMean" and set(numpy_helper.to_array(axes).tolist()) in PLANE:
                continue
            keeps.i, name = 1, reduce.output[0]
            reduce.output[0] = f"{name}_kept"
            squeeze = helper.make_node("Squeeze", [reduce.output[0], reduce.input[1]], [name], name=f"{name}_squeezed")
            self.nodes.insert(self.nodes.index(reduce) + 1, squeeze)
            self.makers |= {squeeze.input[0]: reduce, name: squeeze}
            for read in squeeze.input:
                self.readers[read].append(squeeze)

    def turn_after_codes(self) -> None:
        """Transpose, quantise, dequantise, MatMul -> quantise, dequantise, Transpose, MatMul."""
        for turn in [node for node in self.nodes if node.op_type == "Transpose"]:
            permutation = list(next(a.ints for a in turn.attribute if a.name == "perm"))
            rank = len(permutation)
            if permutation != [*range(rank - 2), rank - 1, rank - 2]:
                continue
            quantize = self.only_reader(turn, "QuantizeLinear")
            dequantize = self.only_reader(quantize, "DequantizeLinear")
            product = self.only_reader(dequantize, "MatMul")
            if quantize is None or dequantize is None or product is None or product.input[1] != dequantize.output[0]:
                continue
            quantize.input[0] = turn.input[0]
            turn.input[0] = dequantize.output[0]
            product.input[1] = turn.output[0]
            self.nodes.remove(turn)
            self.insert(product, turn)
            del self.graph.value_info[:]  # the codes have another shape now; runtimes infer it

    def drop_zero_points(self) -> None:
        """Drop those of weights and biases, and those of the right factors of products of two activations."""
        for node in [node for node in self.nodes if node.op_type == "DequantizeLinear"]:
            if node.input[0] in self.constants and self.is_zero(node):
                del node.input[2]
        for product in [node for node in self.nodes if node.op_type == "MatMul"]:
            maker = self.only_maker(product.input[1])
            dequantize = self.only_maker(maker.input[0]) if maker and maker.op_type == "Transpose" else maker
            quantize = self.only_maker(dequantize.input[0]) if dequantize else None
            if quantize is None or dequantize is None or quantize.op_type != "QuantizeLinear":
                continue
            if self.is_zero(dequantize) and self.constants[dequantize.input[2]].data_type == TensorProto.INT8:
                del quantize.input[2], dequantize.input[2]
                for attribute in [a for a in quantize.attribute if a.name == "output_dtype"]:
                    quantize.attribute.remove(attribute)
                quantize.attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))
                self.hold(quantize)

    def hold(self, quantize: NodeProto) -> None:
        """Fix the place of the quantisation: ONNX Runtime would repeat it before every transposition above.

        A Max of one value stops that rewrite. OpenVINO drops this operation when it reads the file.
        """
        held = f"{quantize.output[0]}_held"
        self.insert(quantize, helper.make_node("Max", [quantize.input[0]], [held], name=held))
        quantize.input[0] = held

    def only_maker(self, name: str) -> NodeProto | None:
        """The node that makes a value which one node alone reads."""
        return self.makers.get(name) if len(self.readers[name]) == 1 else None

    def is_zero(self, node: NodeProto) -> bool:
        """A quantise or dequantise operation has a zero point, and it is 0."""
        tensor = self.constants.get(node.input[2]) if len(node.input) > 2 else None
        return tensor is not None and not numpy_helper.to_array(tensor).any()

    def only_reader(self, node: NodeProto | None, kind: str) -> NodeProto | None:
        readers = self.readers[node.output[0]] if node is not None else []
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None

    def insert(self, before: NodeProto, node: NodeProto) -> None:
        self.nodes.insert(self.nodes.index(before), node)

    def finish(self) -> None:
        """Write the nodes back, without those and the constants that nothing reads any more."""
        wanted = {value.name for value in self.graph.output}
        kept = []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                wanted |= set(node.input)
                kept.append(node)
        del self.graph.node[:]
        self.graph.node.extend(reversed(kept))
        constants = [tensor for tensor in self.graph.initializer if tensor.name in wanted]
        del self.graph.initializer[:]
        self.graph.initializer.extend(constants)
