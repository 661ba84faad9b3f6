"""The picture of a comparison for documents; the page draws its own charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitrail.evaluation import Interval


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One model of a comparison, in the units of the axes.

    Attributes:
        label: name of the model.
        scores: one score a seed.
        mean: mean of the scores.
        difference: paired difference to the baseline; None for the baseline itself.
    """

    label: str
    scores: Sequence[float]
    mean: float
    difference: Interval | None


def comparison_figure(rows: Sequence[ScoreRow], score: str, difference: str) -> Figure:
    """The score of every seed beside the paired difference to the baseline with its interval.

    Args:
        rows: the models, from top to bottom.
        score, difference: labels of the two axes.
    """
    figure = Figure(figsize=(8, 1.3 + 0.42 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):
        left.plot(row.scores, [place] * len(row.scores), "o", color="tab:blue", alpha=0.6)
        left.plot(row.mean, place, "|", color="black", markersize=16)
        if row.difference is not None:
            right.plot([row.difference.low, row.difference.high], [place, place], "-", color="tab:red")
            right.plot(row.difference.mean, place, "|", color="black", markersize=16)
    right.axvline(0, color="grey", linewidth=1, linestyle=":")
    left.set_yticks(range(len(rows)), [row.label for row in rows])
    left.set(xlabel=score, ylim=(len(rows) - 0.5, -0.5))
    # names of models with fields are long, and would run into the other half
    right.set(xlabel=fill(difference, 34))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.grid(axis="x", alpha=0.3)
    return figure
