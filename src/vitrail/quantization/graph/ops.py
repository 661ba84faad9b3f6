"""The operations of a graph that are quantised, and their operands."""

from __future__ import annotations

import fnmatch
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from vitrail.quantization.graph.capture import constant, module_path, tensor_of
from vitrail.quantization.graph.prepare import argument
from vitrail.quantization.plan import Role, operand_name

aten = torch.ops.aten

Kind = Literal["linear", "conv", "conv_transpose", "matmul"]

KINDS: dict[object, Kind] = {
    aten.linear.default: "linear",
    aten.conv2d.default: "conv",
    aten.conv2d.padding: "conv",
    aten.conv_transpose2d.input: "conv_transpose",
    aten.matmul.default: "matmul",
    aten.bmm.default: "matmul",
}

UNSUPPORTED = {
    aten.scaled_dot_product_attention.default: "causal, grouped-query or dropped-out attention",
    aten.einsum.default: "einsum",
    aten.addmm.default: "addmm",
    aten.baddbmm.default: "baddbmm",
    aten.mm.default: "mm",
    aten.conv1d.default: "1-d convolution",
    aten.conv3d.default: "3-d convolution",
    aten.convolution.default: "general convolution",
    aten.bilinear.default: "bilinear",
    aten.conv_transpose1d.default: "1-d transposed convolution",
}

SHAPE_ONLY = {
    getattr(aten, name)
    for name in (
        *(
            "view",
            "reshape",
            "_unsafe_view",
            "permute",
            "transpose",
            "t",
            "flatten",
            "unflatten",
            "contiguous",
            "clone",
        ),
        *("slice", "select", "squeeze", "unsqueeze", "expand", "roll", "pad", "constant_pad_nd", "unbind", "chunk"),
        *("split", "split_with_sizes", "alias", "detach", "movedim", "narrow"),
    )
}
"""Operations that move values and change none."""


@dataclass(frozen=True, kw_only=True)
class Operand:
    """One tensor to quantise.

    Attributes:
        name: module path ":" role; unique in a model.
        role: place among the operands of its operation.
        node: node of the graph that computes or holds it.
        signed: codes are signed; activations that a runtime multiplies by a weight are unsigned.
        symmetric: zero has code 0.
        axis: dimension of the channels of a weight.
    """

    name: str
    role: Role
    node: fx.Node
    signed: bool
    symmetric: bool
    axis: int | None = None


@dataclass(frozen=True, kw_only=True)
class QuantizedOp:
    """One operation with all its operands.

    Attributes:
        left, right: factors; ``right`` is the weight of a layer.
        output: operand only of convolutions, since ONNX Runtime's integer convolution writes codes.
        has_weight: ``right`` is a constant.
        weight_shape: shape of that constant; empty if there is none.
    """

    node: fx.Node
    path: str
    kind: Kind
    depthwise: bool
    has_weight: bool
    weight_shape: torch.Size
    left: Operand
    right: Operand
    output: Operand | None

    @property
    def arguments(self) -> tuple[Any, Any, Any]:
        """The nodes that the operation reads now: left and right factor, and bias (None if there is none)."""
        bias = None if self.kind == "matmul" else argument(self.node, 2, "bias")
        return self.node.args[0], argument(self.node, 1, "weight"), bias

    def compute(self, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        """The operation's output from other factors and another bias, which a matrix product may have too."""
        target: Any = self.node.target
        if self.kind == "matmul":
            product: Tensor = target(left, right)
            return product if bias is None else product + bias
        options = {key: value for key, value in self.node.kwargs.items() if key not in ("weight", "bias")}
        result: Tensor = target(left, right, bias, *self.node.args[3:], **options)
        return result

    @property
    def dense(self) -> bool:
        """The operation is ``rows(left) @ matrix(weight).T``: every output reads every input channel."""
        if self.kind in ("linear", "matmul"):
            return self.has_weight
        grouped = int(argument(self.node, 6, "groups", 1)) > 1
        return self.kind == "conv" and not grouped and not isinstance(argument(self.node, 4, "padding", 0), str)

    def rows(self, left: Tensor) -> Tensor:
        """The vectors (n, d) that meet the weight: tokens, or the patches of a convolution.

        Where the operation is not :attr:`dense` they are the pixels, (n, channels).
        """
        if self.kind in ("linear", "matmul"):
            return left.reshape(-1, left.shape[-1])
        kernel = self.weight_shape[2:]
        if not self.dense or tuple(kernel) == (1, 1):
            strides = _pair(argument(self.node, 3, "stride", 1)) if self.dense else (1, 1)
            return left[:, :, :: strides[0], :: strides[1]].movedim(1, -1).reshape(-1, left.shape[1])
        defaults = {"stride": 1, "padding": 0, "dilation": 1}
        options = {
            name: _pair(argument(self.node, index, name, default))
            for index, (name, default) in enumerate(defaults.items(), start=3)
        }
        return F.unfold(left, tuple(kernel), **options).transpose(1, 2).reshape(-1, left.shape[1] * kernel.numel())

    def matrix(self, weight: Tensor) -> Tensor:
        """A dense operation's weight as (outputs, d)."""
        return weight.t() if self.kind == "matmul" else weight.flatten(1)

    def unflatten_weight(self, matrix: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of :meth:`matrix`."""
        return matrix.t().contiguous() if self.kind == "matmul" else matrix.reshape(shape)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.left, self.right) if self.output is None else (self.left, self.right, self.output)

    @property
    def kinds(self) -> set[str]:
        """The words of ``keep_float`` that name this operation."""
        kinds = {str(self.kind)} | ({"depthwise"} if self.depthwise else set())
        return kinds | ({"stem"} if self.kind == "conv" and self.left.node.op == "placeholder" else set())

    def matches(self, patterns: Iterable[str]) -> str | None:
        """The first pattern of ``keep_float`` that this operation fits, by its kind, its module or an operand."""
        names = (self.path, *(operand.name for operand in self.operands))
        return next((p for p in patterns if p in self.kinds or fnmatch.filter(names, p)), None)

    def constants(self, graph_module: fx.GraphModule) -> tuple[Tensor, Tensor | None]:
        """The weight and the bias of a layer; None for a missing bias."""
        _, weight, bias = self.arguments
        return constant(graph_module, weight), tensor_of(graph_module, bias)


def find_ops(graph_module: fx.GraphModule) -> tuple[list[QuantizedOp], list[str]]:
    """All operations that can be quantised, in order, and descriptions of the multiplications that cannot."""
    counts: Counter[tuple[str, Role]] = Counter()
    ops, unsupported = [], []
    for node in graph_module.graph.nodes:
        if node.target in UNSUPPORTED:
            unsupported.append(f"{module_path(node) or 'model'}: {UNSUPPORTED[node.target]} has no integer form here")
        elif node.target in KINDS:
            op = _op(graph_module, node, counts)
            if op is None:
                unsupported.append(f"{module_path(node) or 'model'}: a computed weight has no integer form here")
            else:
                ops.append(op)
    return ops, unsupported


def _op(graph_module: fx.GraphModule, node: fx.Node, counts: Counter[tuple[str, Role]]) -> QuantizedOp | None:
    kind, path = KINDS[node.target], module_path(node)
    left: Any = node.args[0]
    right: Any = argument(node, 1, "weight")
    weight = tensor_of(graph_module, right)
    if weight is None and kind != "matmul":
        return None
    has_weight = weight is not None and (kind != "matmul" or weight.ndim == 2)
    roles: tuple[Role, Role] = node.meta.get("roles") or (("input", "weight") if has_weight else ("left", "right"))
    counts[path, roles[0]] += 1
    call = counts[path, roles[0]]

    def operand(role: Role, source: fx.Node, signed: bool, axis: int | None = None) -> Operand:
        name = operand_name(path, role, call)
        return Operand(name=name, role=role, node=source, signed=signed, symmetric=signed, axis=axis)

    groups = int(argument(node, {"conv": 6, "conv_transpose": 6}.get(kind, 99), "groups", 1))
    # a transposed convolution stores (in, out / groups, ...): its channels are on axis 0 only if every group has one
    axis = {"linear": 0, "conv": 0, "conv_transpose": 0 if groups > 1 else 1, "matmul": 1}[kind]
    return QuantizedOp(
        node=node,
        path=path,
        kind=kind,
        depthwise=groups > 1 and weight is not None and groups == weight.shape[0] and weight.shape[1] == 1,
        has_weight=has_weight,
        weight_shape=weight.shape if has_weight and weight is not None else torch.Size(),
        # attention: OpenVINO wants signed factors, and probabilities are never negative
        left=operand(roles[0], left, signed=roles[0] == "query"),
        right=operand(roles[1], right, signed=True, axis=axis if has_weight else None),
        output=operand("output", node, signed=False) if kind == "conv" else None,
    )


def _pair(value: Any) -> tuple[int, int]:
    first, *rest = value if isinstance(value, list | tuple) else (value,)
    return (int(first), int(rest[0] if rest else first))


def fingerprint(graph_module: fx.GraphModule, ops: Iterable[QuantizedOp]) -> str:
    """Sixteen hex digits from the names of all operands and the shapes of all weights; their values do not count."""
    digest = hashlib.sha256()
    for op in ops:
        for operand in op.operands:
            weight = tensor_of(graph_module, operand.node)
            digest.update(f"{operand.name} {tuple(weight.shape) if weight is not None else ''}\n".encode())
    return digest.hexdigest()[:16]


def contents_digest(tensors: Mapping[str, Any]) -> str:
    """Sixteen hex digits from the values of all floating-point tensors: weights, or calibration images.

    Counters and what else a state dict may hold do not count.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            values = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
