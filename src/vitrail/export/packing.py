"""Weights of fewer than 8 bits take their true size in the file and are unpacked once, when a runtime loads it.

Codes of 4 bits are INT4 tensors behind a Cast to INT8. Other widths are bit planes: the codes, made unsigned, are cut
into planes of 4, 2 and 1 bits, and each plane lies packed in bytes. Both runtimes fold all this into an 8-bit constant,
if it is written as here: OpenVINO 2026.4 computes a BitShift wrongly, and a Cast of signed integers that a Mul follows
it takes for a dequantisation, which it keeps and repeats for every image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

PLANES = {2: (2,), 3: (2, 1), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}
"""Bit width -> widths of its planes, the upper one first; 4 bits have a type of their own."""

SMALLEST = 64
"""Weights with fewer elements stay as they are: unpacking would take more room than they do."""


def pack_weights(model: onnx.ModelProto) -> None:
    """Replace, in place, every 8-bit weight whose codes need fewer bits by its packed form; the codes stay the same."""
    graph = model.graph
    dequantized = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    unpacking: list[onnx.NodeProto] = []
    for tensor in [t for t in graph.initializer if t.name in dequantized and t.data_type == TensorProto.INT8]:
        codes = numpy_helper.to_array(tensor)
        width = bit_width(codes)
        if codes.size >= SMALLEST and width < 8:
            packed = _Packed(tensor.name, codes, width)
            graph.initializer.remove(tensor)
            graph.initializer.extend(packed.tensors)
            unpacking += packed.nodes
    nodes = [*unpacking, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def bit_width(codes: NDArray[np.int8]) -> int:
    """The fewest bits, 2 to 8, of a two's complement integer that holds every code."""
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    return next(b for b in range(2, 9) if -(1 << b - 1) <= low and high < 1 << b - 1)


class _Packed:
    """Tensors that hold the codes of one weight, and the nodes that make it again, under its name."""

    def __init__(self, name: str, codes: NDArray[np.int8], width: int) -> None:
        self.name = name
        self.shape = codes.shape
        self.tensors: list[onnx.TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []
        if width == 4:
            self.node("Cast", self.int4(codes), to=TensorProto.INT8, output=name)
            return
        offset = 1 << width - 1
        unsigned = codes.astype(np.int32) + offset
        below, total = width, ""
        for plane in PLANES[width]:
            below -= plane
            bits = self.plane(unsigned >> below, plane)
            if below:
                bits = self.node("Mul", bits, self.constant(f"factor{plane}", np.int32(1 << below)))
            total = self.node("Add", total, bits) if total else bits
        signed = self.node("Sub", total, self.constant("offset", np.int32(offset)))
        self.node("Cast", signed, to=TensorProto.INT8, output=name)

    def int4(self, codes: NDArray[np.int8]) -> str:
        """Two codes to a byte, the first in the lower half, as raw data: ONNX Runtime reads no other form."""
        flat = codes.reshape(-1).view(np.uint8) & 15
        flat = np.append(flat, np.zeros(-flat.size % 2, np.uint8))
        data = (flat[::2] | flat[1::2] << 4).tobytes()
        self.tensors.append(helper.make_tensor(f"{self.name}_int4", TensorProto.INT4, self.shape, data, raw=True))
        return self.tensors[-1].name

    def plane(self, codes: NDArray[np.int32], width: int) -> str:
        """The lowest ``width`` bits of all codes, as many to a byte as fit, and the nodes that spread them again."""
        each, count = 8 // width, codes.size
        flat = codes.reshape(-1) & (1 << width) - 1
        flat = np.append(flat, np.zeros(-count % each, np.int32)).reshape(-1, each)
        powers = (1 << width * np.arange(each, dtype=np.int32)).reshape(1, -1)
        packed = self.constant(f"plane{width}", (flat * powers).sum(1, keepdims=True).astype(np.uint8))
        wide = self.node("Cast", packed, to=TensorProto.INT32)
        shifted = self.node("Div", wide, self.constant(f"powers{width}", powers.astype(np.int32)))
        bits = self.node("Mod", shifted, self.constant(f"modulus{width}", np.int32(1 << width)))
        if flat.size != count:
            bits = self.node("Reshape", bits, self.constant("flat", np.array([-1], np.int64)))
            ends = (self.constant(role, np.array([i], np.int64)) for role, i in (("from", 0), ("to", count)))
            bits = self.node("Slice", bits, *ends)
        return self.node("Reshape", bits, self.constant("shape", np.array(self.shape, np.int64)))

    def constant(self, role: str, value: NDArray[np.generic] | np.generic) -> str:
        name = f"{self.name}_{role}"
        if all(tensor.name != name for tensor in self.tensors):
            self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{self.name}_{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output
