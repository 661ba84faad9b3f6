"""Pictures of how far answers can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure


def trust_figure(before: Mapping[str, Any], after: Mapping[str, Any]) -> Figure:
    """Accuracy over confidence, with the logits as they are and over the temperature; below the diagonal a model is too
    sure.

    Args:
        before, after: ``bins`` and ``ece`` of ``trust.json``.
    """
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], "--", color="grey", label="perfect calibration")
    for index, (name, found) in enumerate((("as it is", before), ("over the temperature", after))):
        confidence = [one["confidence"] for one in found["bins"]]
        accuracy = [one["accuracy"] for one in found["bins"]]
        label = f"{name}: calibration error {found['ece']['mean']:.1%}"
        axes.plot(confidence, accuracy, marker="os"[index], color=f"C{index}", label=label)
        lows = [one["low"] + 0.5 * index / 15 for one in found["bins"]]
        counts = [one["count"] for one in found["bins"]]
        histogram.bar(lows, counts, 0.5 / 15, align="edge", edgecolor="white", color=f"C{index}")
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    axes.legend(loc="upper left")
    histogram.set(xlabel="confidence", ylabel="images")
    return figure
