"""Operations that go back to float within a latency: those with the largest loss for the time that they save."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from vitrail.quantization.graph.ops import QuantizedOp, find_ops
from vitrail.quantization.graph.prepare import prepared_graph
from vitrail.quantization.graph.runner import GraphRunner
from vitrail.quantization.methods.smoothing import smooth_again
from vitrail.quantization.mixed_precision.sensitivity import objective_of, predict_losses
from vitrail.quantization.plan import QuantizationPlan

RANKING_IMAGES = 16
"""Images that losses are predicted on."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """A quantised operation of a plan.

    Attributes:
        operands: names of its operands.
        loss: predicted increase of the output's loss by its codes.
        num_macs: multiply-accumulates for one image, to which its time is taken to be proportional.
    """

    operands: tuple[str, ...]
    loss: float
    num_macs: int


def rank_products(model: nn.Module, images: Tensor, plan: QuantizationPlan) -> list[Product]:
    """The quantised products, first the one with the largest loss for each multiply-accumulate that it makes cheaper.

    Args:
        model: the float model that the plan was made for.
        images: normalised calibration images (n, c, h, w), of which ``RANKING_IMAGES`` are used.
    """
    graph_module = prepared_graph(model, images)
    ops, _ = find_ops(graph_module)
    smooth_again(graph_module, ops, plan.smoothing, images)
    quantised = [op for op in ops if op.left.name in plan.operands]
    few = images[:RANKING_IMAGES]

    def fake_quantize(name: str, x: Tensor, _: int) -> Tensor:
        return plan.operands[name].fake_quantize(x) if name in plan.operands else x

    objective = objective_of(graph_module, few)
    losses = predict_losses(graph_module, quantised, few, (0,), fake_quantize, objective=objective)
    macs = _count_macs(graph_module, quantised, few[:1])
    products = []
    for op in quantised:
        names = tuple(operand.name for operand in op.operands if operand.name in plan.operands)
        loss = sum(losses[name][0] for name in names)
        products.append(Product(operands=names, loss=loss, num_macs=macs[op.left.name]))
    return sorted(products, key=lambda product: product.loss / product.num_macs, reverse=True)


def leave_in_float(plan: QuantizationPlan, products: Iterable[Product]) -> QuantizationPlan:
    """The plan without the codes of some products."""
    removed = [name for product in products for name in product.operands]
    return replace(
        plan,
        operands={name: quantizer for name, quantizer in plan.operands.items() if name not in removed},
        rounding={name: rounding for name, rounding in plan.rounding.items() if name not in removed},
        counts={name: count for name, count in plan.counts.items() if name not in removed},
        skipped=(*plan.skipped, *(f"{name}: kept in float, as the latency allows it" for name in removed)),
    )


def _count_macs(graph_module: fx.GraphModule, ops: list[QuantizedOp], image: Tensor) -> dict[str, int]:
    macs: dict[str, int] = {}

    def count(op: QuantizedOp, left: Tensor, _right: Tensor, output: Tensor) -> Tensor:
        inner = op.rows(left[:1]).shape[-1] if op.dense else left.shape[-1]
        if op.has_weight and not op.dense:  # grouped convolutions
            inner = op.weight_shape[1:].numel()
        macs[op.left.name] = output.numel() * inner
        return output

    with torch.inference_mode():
        GraphRunner(graph_module, ops, after=count).run(image)
    return macs
