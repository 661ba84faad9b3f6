"""The HTML page of a tune: course, settings that matter, trials, and the best configuration."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from vitrail.core.files import write_text
from vitrail.report.charts import GLASS, INK, MUTED, PAPER, page_svg
from vitrail.report.stained_glass import window
from vitrail.report.written import percent
from vitrail.tuning.space import Axis, value_text
from vitrail.tuning.tuned import TuneReport, config_yaml


def write_tune_page(report: TuneReport) -> Path:
    """Write ``tune.html``: one page without scripts that loads nothing from the network or from disk.

    Raises:
        VitrailError: the page cannot be written.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("vitrail.tuning"), PackageLoader("vitrail.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent)
    name, best = report.folder.folder.resolve().name, report.best
    html = environment.get_template("tune.html.j2").render(
        name=name,
        window=window(name),
        report=report,
        titles={axis.name: axis.title for axis in report.space},
        counts={state: sum(one.state == state for one in report.trials) for state in ("complete", "pruned", "failed")},
        history=_history(report),
        slices=[_slice(report, axis, index) for index, axis in enumerate(report.space)],
        failures=[one for one in report.trials if one.state == "failed"],
        best_yaml="" if best is None else config_yaml(report.config_of(best)),
    )
    write_text(report.folder.page, html)
    return report.folder.page


def _points(report: TuneReport) -> list[tuple[int, float, bool, dict[str, Any]]]:
    """Number, score, whether it is complete, and settings of every trial that has a score."""
    factor = 100 if report.score.percent else 1
    return [
        (one.number, factor * one.score, one.state == "complete", one.values)
        for one in report.trials
        if one.score is not None and one.done
    ]


def _heading(report: TuneReport) -> str:
    return f"val {report.score.title}{' (%)' * report.score.percent}"


def _history(report: TuneReport) -> Markup:
    """The score of every trial, and the best until then."""
    points = _points(report)

    def plot(axes: Axes) -> None:
        for number, score, complete, _ in points:
            face = GLASS[0] if complete else PAPER
            edge = GLASS[0] if complete else MUTED
            axes.plot(number, score, "o", markersize=7, markerfacecolor=face, markeredgecolor=edge)
        complete_ones = [(number, score) for number, score, complete, _ in points if complete]
        scores = [score for _, score in complete_ones]
        best = accumulate(scores, max if report.score.higher_is_better else min)
        axes.step([number for number, _ in complete_ones], list(best), where="post", color=GLASS[1], linewidth=1.4)
        axes.set(xlabel="trial", ylabel=_heading(report))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))

    told = "" if report.best is None else f"; the best is trial {report.best.number}"
    return page_svg("history", f"Validation score of {len(points)} trials{told}.", (6.6, 3.2), plot)


def _slice(report: TuneReport, axis: Axis, index: int) -> Markup:
    """The score over one setting."""
    points = [point for point in _points(report) if axis.name in point[3]]
    best = report.best

    def plot(axes: Axes) -> None:
        for number, score, complete, values in points:
            value = values[axis.name]
            place = axis.choices.index(value) if axis.choices else value
            first = best is not None and number == best.number
            colour = GLASS[1] if first else GLASS[0] if complete else MUTED
            axes.plot([place], [score], marker="D" if first else "o", linestyle="", markersize=7, color=colour)
        if axis.choices:
            axes.set_xticks(range(len(axis.choices)), [value_text(one).replace("$", r"\$") for one in axis.choices])
        elif axis.log:
            axes.set_xscale("log")
        axes.set_title(axis.title, color=INK)
        axes.set_ylabel(_heading(report))

    return page_svg(f"slice-{index}", f"Validation score over {axis.title}.", (4.2, 2.9), plot)
