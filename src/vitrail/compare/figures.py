"""The picture of a comparison for documents; the page draws its own charts."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitrail.compare.collect import Comparison


def comparison_figure(comparison: Comparison) -> Figure:
    """Top-1 of every seed beside the paired difference to the baseline with its interval."""
    cells = comparison.cells
    height = 1.3 + 0.42 * len(cells)
    figure = Figure(figsize=(8, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, cell in enumerate(cells):
        left.plot([100 * value for value in cell.top1], [place] * len(cell.top1), "o", color="tab:blue", alpha=0.6)
        left.plot(100 * cell.interval.mean, place, "|", color="black", markersize=16)
        if cell.difference is not None:
            mean, low, high = (100 * v for v in (cell.difference.mean, cell.difference.low, cell.difference.high))
            right.plot([low, high], [place, place], "-", color="tab:red")
            right.plot(mean, place, "|", color="black", markersize=16)
    right.axvline(0, color="grey", linewidth=1, linestyle=":")
    left.set_yticks(range(len(cells)), [cell.name for cell in cells])
    left.set(xlabel="top-1 (%): seeds and their mean", ylim=(len(cells) - 0.5, -0.5))
    right.set(xlabel=f"points against '{comparison.baseline}',\n95 % interval")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.grid(axis="x", alpha=0.3)
    return figure
