"""The picture of a comparison for documents; the page draws its own charts."""

from __future__ import annotations

from textwrap import fill

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitrail.compare.collect import Comparison
from vitrail.compare.tables import heading_of, scale_of


def comparison_figure(comparison: Comparison) -> Figure:
    """The score of every seed beside the paired difference to the baseline with its interval."""
    cells, factor = comparison.cells, scale_of(comparison.score)[0]
    height = 1.3 + 0.42 * len(cells)
    figure = Figure(figsize=(8, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, cell in enumerate(cells):
        shown = [factor * value for value in cell.scores]
        left.plot(shown, [place] * len(shown), "o", color="tab:blue", alpha=0.6)
        left.plot(factor * cell.interval.mean, place, "|", color="black", markersize=16)
        if cell.difference is not None:
            found = cell.difference.interval
            mean, low, high = (factor * value for value in (found.mean, found.low, found.high))
            right.plot([low, high], [place, place], "-", color="tab:red")
            right.plot(mean, place, "|", color="black", markersize=16)
    right.axvline(0, color="grey", linewidth=1, linestyle=":")
    left.set_yticks(range(len(cells)), [cell.label for cell in cells])
    left.set(xlabel=f"{heading_of(comparison.score)}: seeds and their mean", ylim=(len(cells) - 0.5, -0.5))
    unit = "points" if comparison.score.percent else "difference"
    # names of cells with fields are long, and would run into the other half
    right.set(xlabel=fill(f"{unit} against '{comparison.baseline}', 95 % interval", 34))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.grid(axis="x", alpha=0.3)
    return figure
