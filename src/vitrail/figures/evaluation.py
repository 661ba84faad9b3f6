"""Pictures of a classifier's evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vitrail.evaluation.classification import ClassificationReport

MOST_NAMED = 40
"""With more classes, names are unreadable and left out."""
MOST_COUNTED = 20
"""With more classes, numbers in the cells are unreadable and left out."""


def confusion_figure(report: ClassificationReport) -> Figure:
    """The confusion matrix: true classes down, predicted ones across, each row coloured by its shares."""
    counts = np.array(report.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [row.name for row in report.per_class]
    side = min(3.0 + 0.42 * len(names), 12.0)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class", title=f"Confusion ({report.num_images} images)")
    if len(names) <= MOST_NAMED:
        longest = max(map(len, names))
        axes.set_xticks(range(len(names)), _plain(names), rotation=90 if longest > 2 else 0)
        axes.set_yticks(range(len(names)), _plain(names))
    if len(names) <= MOST_COUNTED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    return figure


def reliability_figure(report: ClassificationReport) -> Figure:
    """Accuracy against confidence; bars below the diagonal mean overconfidence."""
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    low = [part.low for part in report.calibration]
    width = [part.high - part.low for part in report.calibration]
    accuracy = [part.accuracy for part in report.calibration]
    axes.bar(low, accuracy, width, align="edge", edgecolor="white", color="tab:blue", label="accuracy")
    axes.plot([part.confidence for part in report.calibration], accuracy, ".", color="black", label="mean confidence")
    axes.plot([0, 1], [0, 1], "--", color="grey", label="perfect calibration")
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=f"Calibration error {report.ece:.1%}")
    axes.legend(loc="upper left")
    counts = [part.count for part in report.calibration]
    histogram.bar(low, counts, width, align="edge", edgecolor="white", color="tab:grey")
    histogram.set(xlabel="confidence", ylabel="images")
    return figure


def evaluation_figures(report: Mapping[str, Any]) -> dict[str, Figure]:
    """The pictures of a report of ``evaluation.json``, by name; tasks other than classification have none."""
    if "confusion" not in report:
        return {}
    whole = ClassificationReport.from_dict(dict(report))
    return {"confusion": confusion_figure(whole), "reliability": reliability_figure(whole)}


def _plain(names: list[str], limit: int = 24) -> list[str]:
    """Class names as they are: not as formulas, and not longer than a label may be."""
    short = [name if len(name) <= limit else name[: limit - 3] + "..." for name in names]
    return [name.replace("$", r"\$") for name in short]
