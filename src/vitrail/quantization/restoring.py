"""Products that go back to float: where a latency allows it, those that lose most for the time they save."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from vitrail.quantization.plan import QuantizationPlan
from vitrail.quantization.prepare import prepared_graph
from vitrail.quantization.quantize import smooth_again
from vitrail.quantization.sensitivity import Objective, predict_losses
from vitrail.quantization.sites import Site, find_sites

RANKING_IMAGES = 16
"""Images that losses are predicted on."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """A quantised operation of a plan.

    Attributes:
        operands: their names.
        loss: predicted increase of the output's loss by its codes.
        num_macs: multiply-accumulates for one image, to which its time is taken to be proportional.
    """

    operands: tuple[str, ...]
    loss: float
    num_macs: int


def rank_products(model: nn.Module, images: Tensor, plan: QuantizationPlan) -> list[Product]:
    """The quantised products, first the one that loses most for each multiply-accumulate that it makes cheaper.

    Args:
        model: the float model that the plan was made for.
        images: normalised calibration images (n, c, h, w), of which ``RANKING_IMAGES`` are used.
    """
    graph_module = prepared_graph(model, images)
    sites, _ = find_sites(graph_module)
    smooth_again(graph_module, sites, plan, images)
    quantised = [site for site in sites if site.left.name in plan.operands]
    few = images[:RANKING_IMAGES]
    with torch.inference_mode():
        objective: Objective = "probabilities" if graph_module(few[:1]).ndim == 2 else "values"

    def fake_quantize(name: str, x: Tensor, _: int) -> Tensor:
        return plan.operands[name].fake_quantize(x) if name in plan.operands else x

    losses = predict_losses(graph_module, quantised, few, (0,), fake_quantize, objective=objective)
    macs = _count_macs(graph_module, quantised, few[:1])
    products = []
    for site in quantised:
        names = tuple(operand.name for operand in site.operands if operand.name in plan.operands)
        loss = sum(losses[name][0] for name in names)
        products.append(Product(operands=names, loss=loss, num_macs=macs[site.left.name]))
    return sorted(products, key=lambda product: product.loss / product.num_macs, reverse=True)


def leave_in_float(plan: QuantizationPlan, products: Iterable[Product]) -> QuantizationPlan:
    """The plan without the codes of some products."""
    gone = [name for product in products for name in product.operands]
    return replace(
        plan,
        operands={name: codes for name, codes in plan.operands.items() if name not in gone},
        rounded={name: rounded for name, rounded in plan.rounded.items() if name not in gone},
        counts={name: count for name, count in plan.counts.items() if name not in gone},
        skipped=(*plan.skipped, *(f"{name}: kept in float, as the latency allows it" for name in gone)),
    )


def _count_macs(graph_module: fx.GraphModule, sites: list[Site], image: Tensor) -> dict[str, int]:
    wanted = {site.node: site for site in sites}
    found: dict[str, int] = {}

    class Count(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in wanted:
                site = wanted[n]
                left = self.fetch_args_kwargs_from_env(n)[0][0]
                inner = site.rows(left[:1]).shape[-1] if site.dense else left.shape[-1]
                if site.weighted and not site.dense:  # grouped convolutions
                    inner = site.weight_shape[1:].numel()
                found[site.left.name] = value.numel() * inner
            return value

    with torch.inference_mode():
        Count(graph_module).run(image)
    return found
