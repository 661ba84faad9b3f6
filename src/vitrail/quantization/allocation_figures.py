"""Pictures of an allocation: plain Figure objects, so that nothing of matplotlib's global state is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitrail.quantization.allocation import Allocation, allocate_exactly, allocate_greedily, make_allocation
from vitrail.quantization.budget import Budget, Choice, Limit, limits_of

NUM_BUDGETS = 16
"""Budgets at which the curves are computed."""

LABELS = {
    "average_bits": "average bits of weights and of activations, at most",
    "max_size_bytes": "size of the weights, bytes",
    "max_latency_ms": "latency, ms",
}


def budget_figure(choices: Sequence[Choice], budget: Budget, allocation: Allocation) -> Figure:
    """Predicted loss over the budget: the greedy search, the exact allocation, one width for all, and this allocation.

    Losses that were measured on the way are drawn at what had been reached by then.

    Args:
        choices: what the allocation was made from.
        budget: what it was made for; it decides the axis.
    """
    scale = _Scale.of(choices, budget)
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    budgets = [scale.at(i / (NUM_BUDGETS - 1)) for i in range(NUM_BUDGETS)]
    x = [scale.value(each) for each in budgets]
    tightest = allocate_greedily(choices, budgets[0])
    greedy = [allocate_greedily(choices, each, resume_from=tightest.trace).predicted_loss for each in budgets]
    axes.plot(x, greedy, "-", color="tab:blue", label="greedy")
    axes.plot(
        x, [allocate_exactly(choices, each).predicted_loss for each in budgets], "--", color="tab:orange", label="exact"
    )
    uniform = _uniform(choices)
    if uniform:
        points = [(scale.cost(chosen), make_allocation(choices, chosen, budget)) for _, chosen in uniform]
        axes.plot(
            [cost for cost, _ in points], [a.predicted_loss for _, a in points], "D", color="grey", label="one width"
        )
        for (width, _), (cost, a) in zip(uniform, points, strict=True):
            axes.annotate(f"{width}", (cost, a.predicted_loss), (4, 4), textcoords="offset points", color="grey")
    measured = _measured(choices, scale, allocation)
    if measured:
        axes.plot(*zip(*measured, strict=True), ":", color="tab:green", label="measured on the way")
    chosen = [c.bit_widths.index(allocation.bit_widths[c.name]) for c in choices]
    axes.plot([scale.cost(chosen)], [allocation.predicted_loss], "*", color="tab:red", markersize=14, label="taken")
    if min(np.min(line.get_ydata()) for line in axes.get_lines()) > 0:
        axes.set_yscale("log")
    else:  # zero has no logarithm, and below a millionth of the largest loss differences are noise
        axes.set_yscale("symlog", linthresh=max(max(greedy) * 1e-6, 1e-12))
    axes.set(xlabel=LABELS[scale.kind], ylabel="increase of the calibration loss", title="Loss over budget")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def bit_width_figure(choices: Sequence[Choice], allocation: Allocation) -> Figure:
    """A bar a tensor, as long as its bit width, in the order of the model: weights left, activations right."""
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
    """Every width that all tensors could have, and the candidates that it means."""
    shared = set.intersection(*(set(choice.bit_widths) for choice in choices))
    return [(width, [choice.bit_widths.index(width) for choice in choices]) for width in sorted(shared)]


def _measured(choices: Sequence[Choice], scale: _Scale, allocation: Allocation) -> list[tuple[float, float]]:
    """What had been reached after each measured step, and the loss there."""
    places = {choice.name: i for i, choice in enumerate(choices)}
    chosen = [len(choice.bit_widths) - 1 for choice in choices]
    points = []
    for step in allocation.trace:
        place = places[step.name]
        chosen[place] = choices[place].bit_widths.index(step.to_bits)
        if step.measured_loss is not None:
            points.append((scale.cost(chosen), step.measured_loss))
    return points


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

    def cost(self, chosen: Sequence[int]) -> float:
        """What one candidate of every choice needs."""
        return max(limit.used(chosen) / limit.unit for limit in self.limits) + _fixed(self.budget)


def _fixed(budget: Budget) -> float:
    if budget.max_size_bytes is not None:
        return budget.fixed_size_bytes
    return budget.fixed_latency_ms if budget.max_latency_ms is not None else 0.0
