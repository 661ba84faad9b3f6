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
* Between tokens that were joined and their codes stands a minimum with the largest float: OpenVINO 2026.4 joins the
  scales of their sources too, one a token, and then refuses to multiply these tokens by a matrix.
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
    form.keep_tokens_apart()
    form.turn_after_codes()
    form.drop_zero_points()
    form.finish()
    for domain in model.opset_import:
        if not domain.domain:
            domain.version = OPSET


class _IntegerForm:
    """One graph, with the node that makes each value, the nodes that read it, and its dimensions (None: free)."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes = list(graph.node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.dims = {
            value.name: tuple(
                d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim
            )
            for value in graph.value_info
        }
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)

    def repeat_without_shapes(self) -> None:
        """Concat(Expand(constant, shape), x) -> Concat(0 x (a token of x) + constant, x)."""
        for concat in [node for node in self.nodes if node.op_type == "Concat"]:
            axis = next(a.i for a in concat.attribute if a.name == "axis")
            others = [name for name in concat.input if name not in self.constants and self.token(name) is None]
            for index, name in enumerate(concat.input):
                token = self.token(name)
                if token is not None and others and axis == 1:
                    concat.input[index] = self.repeated(token, others[0], concat)
        image = self.graph.input[0].name
        if not any(node.op_type == "QuantizeLinear" for node in self.readers[image]):
            return
        for repeat in [node for node in self.nodes if self.token(node.output[0]) is not None]:
            self.repeat_for_image(repeat, image)

    def repeat_for_image(self, repeat: NodeProto, image: str) -> None:
        """Expand(constant, shape), which no Concat takes -> 0 x (a pixel of each image) + constant."""
        name = repeat.output[0]
        token = self.token(name)
        assert token is not None
        ends, shape = f"{name}_ends", f"{name}_shape"
        places = {f"{name}_begins": [0, 0, 0], ends: [1, 1, 1], f"{name}_axes": [1, 2, 3]}
        for constant, values in (places | {shape: [0, *[1] * (len(token.dims) - 1)]}).items():
            self.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), constant))
        pixel, flat = f"{name}_pixel", f"{name}_flat"
        self.insert(repeat, helper.make_node("Slice", [image, *places], [pixel], name=pixel))
        self.insert(repeat, helper.make_node("Reshape", [pixel, shape], [flat], name=flat))
        result = self.repeated(token, flat, repeat)
        for reader in self.readers[name]:
            reader.input[:] = [result if one == name else one for one in reader.input]

    def token(self, name: str) -> TensorProto | None:
        """The constant that a value repeats for every image; None if it is no such value, or its shape is not known."""
        repeat, dims = self.makers.get(name), self.dims.get(name, ())
        if repeat is None or repeat.op_type not in ("Expand", "Tile") or len(dims) < 2 or None in dims[1:] or dims[0]:
            return None
        constant = self.constants.get(repeat.input[0])
        if constant is None or constant.data_type != TensorProto.FLOAT:
            return None
        shape, own = [1, *dims[1:]], [1] * (len(dims) - len(constant.dims)) + list(constant.dims)
        if own[0] != 1:
            return None
        if list(constant.dims) == shape:
            return constant
        times = [wanted // size for wanted, size in zip(shape, own, strict=True)]
        return numpy_helper.from_array(np.tile(numpy_helper.to_array(constant), times), f"{name}_token")

    def repeated(self, token: TensorProto, like: str, before: NodeProto) -> str:
        """``token`` (1, n, ...) once for every image of ``like`` (b, m, ...)."""
        known = {name for node in self.nodes for name in node.output}
        stem = token.name
        while f"{stem}_repeated" in known:
            stem += "_again"
        if token.name not in self.constants:
            self.graph.initializer.append(token)
            self.constants[token.name] = token
        names = [f"{stem}_{role}" for role in ("from", "to", "axis", "zero", "first", "none", "repeated")]
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

    def keep_tokens_apart(self) -> None:
        """Concat of tokens, quantise -> Concat, Min with the largest float, quantise."""
        for concat in [node for node in self.nodes if node.op_type == "Concat"]:
            name, computed = concat.output[0], [one for one in concat.input if one not in self.constants]
            if len(computed) < 2 or len(self.dims.get(name, ())) != 3:
                continue
            for quantize in [node for node in self.readers[name] if node.op_type == "QuantizeLinear"]:
                guard = f"{quantize.output[0]}_apart"
                largest = numpy_helper.from_array(np.array(np.finfo(np.float32).max), f"{guard}_largest")
                self.graph.initializer.append(largest)
                self.insert(quantize, helper.make_node("Min", [name, largest.name], [guard], name=guard))
                quantize.input[0] = guard

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
