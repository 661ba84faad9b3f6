"""Curves of one run's robustness, or of several runs' side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitrail.evaluation.robustness.config import GROUPS
from vitrail.evaluation.robustness.summary import Robustness

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


def robustness_figures(runs: Mapping[str, Sequence[Robustness]]) -> dict[str, Figure]:
    """One picture for each group of changes, by the group's name.

    Args:
        runs: name -> robustness of one run, or of several that differ in their seed alone. Bands are the standard
            deviation over the seeds, or with one run the 95 % interval over its images.
    """
    present = {curve["group"] for several in runs.values() for one in several for curve in one["curves"]}
    return {group: _figure(group, runs) for group in GROUPS if group in present}


def _figure(group: str, runs: Mapping[str, Sequence[Robustness]]) -> Figure:
    names = list(
        dict.fromkeys(c["name"] for s in runs.values() for one in s for c in one["curves"] if c["group"] == group)
    )
    columns = min(len(names), 5)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(max(3.1 * columns, 5), 2.8 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        unit = ""
        for colour, several in zip(COLOURS * len(runs), runs.values(), strict=False):
            curves = [c for one in several for c in one["curves"] if c["group"] == group and c["name"] == name]
            if curves:
                unit = curves[0]["unit"]
                _draw(axes, curves, colour)
        axes.set(title=name, xlabel=unit, ylim=(0, 102))
    panels[0].set_ylabel("images (%)")
    handles = [
        *(panels[0].plot([], [], color=c, label=name)[0] for c, name in zip(COLOURS * len(runs), runs, strict=False)),
        panels[0].plot([], [], "-", color="black", label="top-1")[0],
        panels[0].plot([], [], ":", color="black", label="same class as untouched")[0],
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _draw(axes: Axes, curves: Sequence[Mapping[str, Any]], colour: str) -> None:
    x = [point["x"] for point in curves[0]["points"]]

    def rows(field: str) -> np.ndarray:
        return 100 * np.array([[point[field] for point in curve["points"]] for curve in curves])

    top1 = rows("top1")
    mean = top1.mean(0)
    if len(curves) > 1:
        low, high = mean - top1.std(0, ddof=1), mean + top1.std(0, ddof=1)
    else:
        low, high = rows("top1_low")[0], rows("top1_high")[0]
    axes.plot(x, mean, ".-", color=colour)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, rows("consistency").mean(0), ":", color=colour)
