"""What quantisation saw on its way, for people: the error of every product, and how a budget was spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import fx

from vitrail.quantization.allocation import Allocation, Budget, Choice
from vitrail.quantization.allocation_figures import bit_width_figure, budget_figure
from vitrail.quantization.calibration import Observation
from vitrail.quantization.graph import tensor_of
from vitrail.quantization.nonuniform import Quantizer
from vitrail.quantization.sites import Site

HIGHEST_DECIBELS = 80.0
"""Products without an error are drawn here."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """How a budget was spent."""

    choices: tuple[Choice, ...]
    budget: Budget
    allocation: Allocation


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """
    Attributes:
        decibels: left operand of a product -> signal to quantisation noise of its output on the calibration sample,
            when only this product is quantised and its weight is rounded to the nearest code.
        spent: how the budget was spent; None without one.
    """

    decibels: Mapping[str, float]
    spent: Spent | None = None

    def figures(self) -> dict[str, Figure]:
        """Name -> picture: ``quantization_noise``, and with a budget ``quantization_budget``, ``bit_widths``."""
        pictures = {"quantization_noise": noise_figure(self.decibels)}
        if self.spent is not None:
            pictures["quantization_budget"] = budget_figure(
                self.spent.choices, self.spent.budget, self.spent.allocation
            )
            pictures["bit_widths"] = bit_width_figure(self.spent.choices, self.spent.allocation)
        return pictures


def product_decibels(
    graph_module: fx.GraphModule,
    sites: Sequence[Site],
    observations: Mapping[str, Observation],
    operands: Mapping[str, Quantizer],
) -> dict[str, float]:
    """See :class:`Diagnostics`; products that are no matrix product, as depthwise convolutions, are left out."""
    result = {}
    for site in sites:
        seen = observations[site.left.name]
        left = operands[site.left.name].fake_quantize(seen.left)
        if not site.weighted:
            assert seen.right is not None
            exact, output = seen.left @ seen.right, left @ operands[site.right.name].fake_quantize(seen.right)
        elif site.dense:
            weight = tensor_of(graph_module, site.right.node)
            assert weight is not None
            codes = operands[site.right.name].fake_quantize(weight)
            exact, output = seen.left @ site.matrix(weight).t(), left @ site.matrix(codes).t()
        else:
            continue
        signal = float(seen.weighted(exact.square()).sum())
        noise = float(seen.weighted((output - exact).square()).sum())
        enough = signal > 0 and noise > signal * 10 ** (-HIGHEST_DECIBELS / 10)
        result[site.left.name] = 10 * math.log10(signal / noise) if enough else HIGHEST_DECIBELS
    return result


def noise_figure(decibels: Mapping[str, float]) -> Figure:
    """A bar a product, in the order of the model: the shorter, the noisier."""
    names = [name.rpartition(":")[0] + (" (attention)" if _attends(name) else "") for name in decibels]
    figure = Figure(figsize=(7.5, 1.2 + 0.14 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), list(decibels.values()), color="tab:blue", height=0.8)
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") or "model" for name in names], fontsize=6)
    axes.set(
        ylim=(len(names) - 0.5, -0.5),
        xlabel="signal to quantisation noise of the output (dB), this product alone",
        title="Quantisation noise of every product",
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _attends(name: str) -> bool:
    return name.rpartition(":")[2].startswith(("query", "softmax"))
