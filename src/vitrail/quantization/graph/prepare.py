"""Rewriting before calibration: every model is brought to the few operations that are quantised."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from vitrail.core.errors import QuantizationError
from vitrail.quantization.graph.capture import capture, tensor_of
from vitrail.quantization.plan import Role

aten = torch.ops.aten

BLIND_IMAGES = 8
"""Images on which masks of attention are looked at."""

LOWEST = -1e30
"""Logit of what a query must not attend to, where it must attend to nothing at all: softmax of -inf alone is NaN."""


def prepared_graph(model: nn.Module, images: Tensor) -> fx.GraphModule:
    """A captured copy of a model, without dropout, fused attention, and batch norms that directly follow a convolution.

    Raises:
        QuantizationError: ``torch.export`` cannot capture the model.
    """
    exported = capture(model, images, QuantizationError).module(check_guards=False)
    # a plain GraphModule: the exported one refuses train() and eval(); the copy leaves the caller's weights alone
    graph_module = fx.GraphModule(exported, exported.graph)
    for name, tensor in [*graph_module.named_parameters(), *graph_module.named_buffers()]:
        set_tensor(graph_module, name, tensor.detach().clone())
    _remove_dropout(graph_module)
    _fold_batch_norm(graph_module)
    _decompose_attention(graph_module, images)
    finish(graph_module)
    return graph_module


def finish(graph_module: fx.GraphModule) -> None:
    """Remove unused nodes, modules and tensors, and compile the graph."""
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    used = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
    for name, _ in [*graph_module.named_parameters(), *graph_module.named_buffers()]:
        if name not in used:
            owner, _, attribute = name.rpartition(".")
            delattr(graph_module.get_submodule(owner), attribute)
    graph_module.graph.lint()
    graph_module.recompile()


def set_tensor(graph_module: fx.GraphModule, name: str, tensor: Tensor) -> None:
    """Replace the parameter or buffer ``name`` by a buffer."""
    owner, _, attribute = name.rpartition(".")
    module = graph_module.get_submodule(owner)
    delattr(module, attribute)
    module.register_buffer(attribute, tensor)


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """An argument of a call, wherever it was put."""
    return node.args[index] if index < len(node.args) else node.kwargs.get(name, default)


def _remove_dropout(graph_module: fx.GraphModule) -> None:
    for node in graph_module.graph.nodes:
        if node.target is aten.dropout.default and not node.args[2]:
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)  # it counts as impure, so eliminate_dead_code keeps it


def _fold_batch_norm(graph_module: fx.GraphModule) -> None:
    """Convolution, batch norm -> convolution. The other order stays: normalised inputs quantise better."""
    for node in graph_module.graph.nodes:
        conv = node.args[0] if node.target is aten.batch_norm.default else None
        if not isinstance(conv, fx.Node) or conv.target is not aten.conv2d.default or len(conv.users) != 1:
            continue
        norm: tuple[Any, ...] = node.args
        weight_node: Any = conv.args[1]
        weight, mean, variance = (tensor_of(graph_module, arg) for arg in (weight_node, *norm[3:5]))
        if weight is None or mean is None or variance is None or norm[5] or len(weight_node.users) != 1:
            continue
        gamma, beta, bias = (tensor_of(graph_module, arg) for arg in (*norm[1:3], argument(conv, 2, "bias")))
        fused_weight, fused_bias = fuse_conv_bn_weights(weight, bias, mean, variance, norm[7], gamma, beta)
        set_tensor(graph_module, str(weight_node.target), fused_weight.detach())
        target = f"{conv.name}_folded_bias"
        graph_module.register_buffer(target, fused_bias.detach())
        with graph_module.graph.inserting_before(conv):
            attribute = graph_module.graph.get_attr(target)
        conv.args = (*conv.args[:2], attribute, *conv.args[3:])
        conv.kwargs = {k: v for k, v in conv.kwargs.items() if k != "bias"}
        node.replace_all_uses_with(conv)
        graph_module.graph.erase_node(node)


def _decompose_attention(graph_module: fx.GraphModule, images: Tensor) -> None:
    """Fused attention to matmul, softmax, matmul, so that queries, keys, probabilities and values can be quantised.

    A query that may attend to nothing gets zeros, as from the fused attention; its softmax alone would be NaN.
    """
    attentions = [node for node in graph_module.graph.nodes if node.target is aten.scaled_dot_product_attention.default]
    masks = {mask for node in attentions if isinstance(mask := argument(node, 3, "attn_mask"), fx.Node)}
    blind = _blind_masks(graph_module, masks, images)
    for node in attentions:
        dropout, causal = argument(node, 4, "dropout_p", 0.0), argument(node, 5, "is_causal", False)
        if dropout or causal or node.kwargs.get("enable_gqa", False):
            continue  # reported as left in float
        query, key, value = node.args[:3]
        mask = argument(node, 3, "attn_mask")
        scale = node.kwargs.get("scale")
        if scale is None:
            scale = 1 / math.sqrt(int(query.meta["val"].shape[-1]))
        with graph_module.graph.inserting_before(node):
            out = _attention(graph_module.graph, node, (query, key, value), mask, scale, blind=mask in blind)
        node.replace_all_uses_with(out)
        graph_module.graph.erase_node(node)  # impure, as dropout


class _Masks(fx.Interpreter):
    """Runs a graph, and keeps the masks with a row that allows nothing."""

    def __init__(self, graph_module: fx.GraphModule, masks: set[fx.Node]) -> None:
        super().__init__(graph_module)
        self.extra_traceback = False
        self.masks = masks
        self.blind: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.masks and bool((~value if value.dtype is torch.bool else value.isneginf()).all(-1).any()):
            self.blind.add(n)
        return value


def _blind_masks(graph_module: fx.GraphModule, masks: set[fx.Node], images: Tensor) -> set[fx.Node]:
    """The masks with a row that allows nothing, on the first images."""
    if not masks:
        return set()
    interpreter = _Masks(graph_module, masks)
    with torch.inference_mode():
        interpreter.run(images[:BLIND_IMAGES])
    return interpreter.blind


def _attention(
    graph: fx.Graph,
    origin: fx.Node,
    qkv: tuple[fx.Node, fx.Node, fx.Node],
    mask: fx.Node | None,
    scale: float,
    *,
    blind: bool,
) -> fx.Node:
    """The operations of one attention.

    Args:
        blind: the mask has rows that allow nothing.
    """

    def call(target: Any, *args: Any, roles: tuple[Role, ...] = ()) -> fx.Node:
        node = graph.call_function(target, args)
        node.meta = {"nn_module_stack": origin.meta.get("nn_module_stack"), "roles": roles}
        return node

    query, key, value = qkv
    # scaling the query costs n x d multiplications, scaling the logits n x n
    logits = call(
        aten.matmul.default,
        call(aten.mul.Tensor, query, scale),
        call(aten.transpose.int, key, -2, -1),
        roles=("query", "key"),
    )
    boolean = mask is not None and mask.meta["val"].dtype is torch.bool
    if boolean:
        lowest = LOWEST if blind else float("-inf")
        logits = call(aten.masked_fill.Scalar, logits, call(aten.logical_not.default, mask), lowest)
    elif mask is not None:
        logits = call(aten.add.Tensor, logits, call(aten.clamp.default, mask, LOWEST) if blind else mask)
    probabilities = call(aten.softmax.int, logits, -1)
    if blind:
        allowed = mask if boolean else call(aten.gt.Scalar, mask, LOWEST)
        seeing = call(aten.any.dim, allowed, -1, True)
        probabilities = call(aten.masked_fill.Scalar, probabilities, call(aten.logical_not.default, seeing), 0.0)
    return call(aten.matmul.default, probabilities, value, roles=("softmax", "value"))
