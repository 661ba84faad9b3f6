"""Figures of a quantisation: plain Figure objects, without matplotlib's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitrail.quantization.diagnostics import Diagnostics
from vitrail.quantization.mixed_precision.budget import (
    Allocation,
    AllocationTrace,
    Budget,
    Choice,
    Limit,
    limits_of,
    make_allocation,
)
from vitrail.quantization.mixed_precision.exact import allocate_exactly
from vitrail.quantization.mixed_precision.greedy import allocate_greedily
from vitrail.quantization.plan import role_of

NUM_BUDGETS = 16
"""Budgets at which the curves are computed."""

LABELS = {
    "average_bits": "average bits of weights and of activations, at most",
    "max_size_bytes": "size of the weights, bytes",
}


def quantization_figures(diagnostics: Diagnostics) -> dict[str, Figure]:
    """Name -> figure: ``quantization_noise``, and with a budget ``quantization_budget``, ``bit_widths``."""
    figures = {"quantization_noise": noise_figure(diagnostics.decibels)}
    trace = diagnostics.allocation
    if trace is not None:
        figures["quantization_budget"] = budget_figure(trace)
        figures["bit_widths"] = bit_width_figure(trace.choices, trace.allocation)
    return figures


def noise_figure(decibels: Mapping[str, float]) -> Figure:
    """A bar for each operation, in the order of the model; a shorter one has more noise.

    Args:
        decibels: left operand of an operation -> signal to noise ratio of its output.
    """
    names = [name.rpartition(":")[0] + (" (attention)" if _is_attention(name) else "") for name in decibels]
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


def _is_attention(name: str) -> bool:
    return role_of(name) in ("query", "softmax")


def budget_figure(trace: AllocationTrace) -> Figure:
    """Predicted loss over the budget: greedy and exact allocation, one bit width for all, and the allocation taken."""
    choices, budget, allocation = trace.choices, trace.budget, trace.allocation
    scale = _Scale.of(choices, budget)
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    budgets = [scale.at(i / (NUM_BUDGETS - 1)) for i in range(NUM_BUDGETS)]
    x = [scale.value(each) for each in budgets]
    tightest = allocate_greedily(choices, budgets[0])
    greedy = [allocate_greedily(choices, each, resume_from=tightest.steps).predicted_loss for each in budgets]
    exact = [allocate_exactly(choices, each).predicted_loss for each in budgets]
    axes.plot(x, greedy, "-", color="tab:blue", label="greedy")
    axes.plot(x, exact, "--", color="tab:orange", label="exact")
    points = [(bit_width, scale.cost(i), make_allocation(choices, i, budget)) for bit_width, i in _uniform(choices)]
    if points:
        losses = [a.predicted_loss for _, _, a in points]
        axes.plot([cost for _, cost, _ in points], losses, "D", color="grey", label="one width")
    for bit_width, cost, a in points:
        axes.annotate(f"{bit_width}", (cost, a.predicted_loss), (4, 4), textcoords="offset points", color="grey")
    taken = [c.bit_widths.index(allocation.bit_widths[c.name]) for c in choices]
    axes.plot([scale.cost(taken)], [allocation.predicted_loss], "*", color="tab:red", markersize=14, label="taken")
    if min(np.min(line.get_ydata()) for line in axes.get_lines()) > 0:
        axes.set_yscale("log")
    else:  # zero has no logarithm, and below a millionth of the largest loss differences are noise
        axes.set_yscale("symlog", linthresh=max(max(greedy) * 1e-6, 1e-12))
    axes.set(xlabel=LABELS[scale.kind], ylabel="increase of the calibration loss", title="Loss over budget")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def bit_width_figure(choices: Sequence[Choice], allocation: Allocation) -> Figure:
    """A bar for each tensor, as long as its bit width, in the order of the model: weights left, activations right."""
    panels = [
        ("weights", allocation.average_weight_bits, [c for c in choices if c.is_weight]),
        ("activations", allocation.average_activation_bits, [c for c in choices if not c.is_weight]),
    ]
    panels = [panel for panel in panels if panel[2]]
    rows = max(len(tensors) for _, _, tensors in panels)
    figure = Figure(figsize=(6.5 * len(panels), 1.2 + 0.14 * rows), layout="constrained")
    widest = max(max(choice.bit_widths) for choice in choices)
    for axes, (kind, average, tensors) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _bars(axes, [(c.name, allocation.bit_widths[c.name]) for c in tensors], widest)
        # rows are equally high in both panels, and both start at the top
        axes.set(ylim=(rows - 0.5, -0.5), xlabel="bits", title=f"{len(tensors)} {kind}, {average:.2f} bits on average")
    return figure


def _bars(axes: Axes, rows: Sequence[tuple[str, int]], widest: int) -> None:
    colours = colormaps["viridis"]
    axes.barh(
        range(len(rows)),
        [bits for _, bits in rows],
        height=0.8,
        color=[colours(0.15 + 0.75 * bits / widest) for _, bits in rows],
    )
    for place, (_, bits) in enumerate(rows):
        axes.text(bits + 0.01 * widest, place, str(bits), va="center", fontsize=6)
    axes.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name, _ in rows], fontsize=6)
    axes.set_xlim(0, widest * 1.06)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _uniform(choices: Sequence[Choice]) -> list[tuple[int, list[int]]]:
    """Every bit width that all tensors could have, and its index among the candidates of each."""
    shared = set.intersection(*(set(choice.bit_widths) for choice in choices))
    return [(each, [choice.bit_widths.index(each) for choice in choices]) for each in sorted(shared)]


@dataclass(frozen=True)
class _Scale:
    """Budgets of one kind, from the smallest that can be met to the one that all tensors at their widest need."""

    kind: str
    budget: Budget
    limits: Sequence[Limit]
    low: float
    high: float

    @classmethod
    def of(cls, choices: Sequence[Choice], budget: Budget) -> _Scale:
        kind = next(name for name in LABELS if getattr(budget, name) is not None)
        limits = [limit for limit in limits_of(choices, budget) if limit.members]
        ends = []
        for limit in limits:
            rows = [limit.costs[i] for i in limit.members]
            ends.append((sum(map(min, rows)) / limit.unit, sum(row[-1] for row in rows) / limit.unit))
        fixed = _fixed(budget)
        low = max(low for low, _ in ends)
        return cls(kind, budget, limits, low + fixed, max(low, *(high for _, high in ends)) + fixed)

    def at(self, share: float) -> Budget:
        """The budget at that share of the way from the smallest to the largest."""
        value: Any = self.low + (self.high - self.low) * share
        if self.kind == "max_size_bytes":
            value = round(value)
        return replace(self.budget, **{self.kind: value})

    def value(self, budget: Budget) -> float:
        value: float = getattr(budget, self.kind)
        return value

    def cost(self, indices: Sequence[int]) -> float:
        """The cost of one candidate of every choice."""
        return max(limit.used(indices) / limit.unit for limit in self.limits) + _fixed(self.budget)


def _fixed(budget: Budget) -> int:
    return 0 if budget.max_size_bytes is None else budget.fixed_size_bytes
