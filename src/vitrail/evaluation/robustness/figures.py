"""Curves and tables of one run's robustness, or of several runs' side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitrail.evaluation.robustness.config import GROUPS

Robustness = Mapping[str, Any]
"""The contents of a ``robustness.json``."""

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


def robustness_figures(runs: Mapping[str, Sequence[Robustness]]) -> dict[str, Figure]:
    """A picture a group of what was done, by the group's name.

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


def robustness_table(
    runs: Mapping[str, Sequence[Robustness]], what: Literal["top1", "consistency"]
) -> tuple[list[str], list[tuple[str, list[float | None]]]]:
    """Headings, and a name with its shares (0 to 1) a row, means over the seeds and over all strengths of a group.

    Top-1 starts with that of the untouched pictures; consistency ends with that of diagonal shifts.
    """
    groups = [g for g in GROUPS if any(g in one["summary"] for several in runs.values() for one in several)]
    top1 = what == "top1"
    head = ["run", *(["untouched"] if top1 else []), *groups, *([] if top1 else ["diagonal pairs"])]
    rows = []
    for name, several in runs.items():
        shares = [_mean([one["summary"].get(group, {}).get(what) for one in several]) for group in groups]
        if top1:
            shares.insert(0, _mean([one["clean_top1"] for one in several]))
        else:
            shares.append(_mean([one.get("diagonal_consistency") for one in several]))
        rows.append((name, shares))
    return head, rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
