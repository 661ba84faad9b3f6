"""Where a graph multiplies: the operations that are quantised, and the names of their operands."""

from __future__ import annotations

import fnmatch
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from vitrail.quantization.graph import module_path, tensor_of
from vitrail.quantization.prepare import argument

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
        node: what computes or holds it.
        signed: codes are signed; activations that a runtime multiplies by a weight are unsigned.
        symmetric: zero has code 0.
        axis: of the channels of a weight.
    """

    name: str
    node: fx.Node
    signed: bool
    symmetric: bool
    axis: int | None = None


@dataclass(frozen=True, kw_only=True)
class Site:
    """One operation with all its operands.

    Attributes:
        left, right: factors; ``right`` is the weight of a layer.
        output: only of convolutions, since ONNX Runtime's integer convolution writes codes.
        weighted: ``right`` is a constant.
        weight_shape: of that constant; empty if there is none.
    """

    node: fx.Node
    path: str
    kind: Kind
    depthwise: bool
    weighted: bool
    weight_shape: torch.Size
    left: Operand
    right: Operand
    output: Operand | None

    @property
    def dense(self) -> bool:
        """The operation is ``rows(left) @ matrix(weight).T``: every output reads every input channel."""
        if self.kind in ("linear", "matmul"):
            return self.weighted
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

    def weight(self, matrix: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of :meth:`matrix`."""
        return matrix.t().contiguous() if self.kind == "matmul" else matrix.reshape(shape)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.left, self.right) if self.output is None else (self.left, self.right, self.output)

    def matches(self, patterns: Iterable[str]) -> str | None:
        """The first pattern of ``keep_float`` that this operation fits."""
        kinds = {str(self.kind)} | ({"depthwise"} if self.depthwise else set())
        if self.kind == "conv" and self.left.node.op == "placeholder":
            kinds.add("stem")
        return next((p for p in patterns if p in kinds or fnmatch.fnmatchcase(self.path, p)), None)


def find_sites(graph_module: fx.GraphModule) -> tuple[list[Site], list[str]]:
    """All operations that can be quantised, in order, and descriptions of the multiplications that cannot."""
    counts: Counter[str] = Counter()
    sites, unsupported = [], []
    for node in graph_module.graph.nodes:
        if node.target in UNSUPPORTED:
            unsupported.append(f"{module_path(node) or 'model'}: {UNSUPPORTED[node.target]} has no integer form here")
        elif node.target in KINDS:
            site = _site(graph_module, node, counts)
            if site is None:
                unsupported.append(f"{module_path(node) or 'model'}: a computed weight has no integer form here")
            else:
                sites.append(site)
    return sites, unsupported


def _site(graph_module: fx.GraphModule, node: fx.Node, counts: Counter[str]) -> Site | None:
    kind, path = KINDS[node.target], module_path(node)
    left: Any = node.args[0]
    right: Any = argument(node, 1, "weight")
    weight = tensor_of(graph_module, right)
    if weight is None and kind != "matmul":
        return None
    weighted = weight is not None and (kind != "matmul" or weight.ndim == 2)
    roles = str(node.meta.get("role") or ("input weight" if weighted else "left right")).split()
    counts[f"{path}:{roles[0]}"] += 1
    calls = counts[f"{path}:{roles[0]}"]
    suffix = f"#{calls}" if calls > 1 else ""

    def operand(role: str, source: fx.Node, signed: bool, axis: int | None = None) -> Operand:
        return Operand(name=f"{path}:{role}{suffix}", node=source, signed=signed, symmetric=signed, axis=axis)

    groups = int(argument(node, {"conv": 6, "conv_transpose": 6}.get(kind, 99), "groups", 1))
    # a transposed convolution stores (in, out / groups, ...): its channels are on axis 0 only if every group has one
    axis = {"linear": 0, "conv": 0, "conv_transpose": 0 if groups > 1 else 1, "matmul": 1}[kind]
    return Site(
        node=node,
        path=path,
        kind=kind,
        depthwise=groups > 1 and weight is not None and groups == weight.shape[0] and weight.shape[1] == 1,
        weighted=weighted,
        weight_shape=weight.shape if weighted and weight is not None else torch.Size(),
        # attention: OpenVINO wants signed factors, and probabilities are never negative
        left=operand(roles[0], left, signed=roles[0] == "query"),
        right=operand(roles[1], right, signed=True, axis=axis if weighted else None),
        output=operand("output", node, signed=False) if kind == "conv" else None,
    )


def _pair(value: Any) -> tuple[int, int]:
    first, *rest = value if isinstance(value, list | tuple) else (value,)
    return (int(first), int(rest[0] if rest else first))


def fingerprint(graph_module: fx.GraphModule, sites: Iterable[Site]) -> str:
    """Sixteen hex digits from the names of all operands and the shapes of all weights; their values do not count."""
    digest = hashlib.sha256()
    for site in sites:
        for operand in site.operands:
            weight = tensor_of(graph_module, operand.node)
            digest.update(f"{operand.name} {tuple(weight.shape) if weight is not None else ''}\n".encode())
    return digest.hexdigest()[:16]
