"""The files of a comparison: ``comparison.json``, ``.csv``, ``.tex``, ``.html`` and ``.png``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitrail.compare.collect import Comparison
from vitrail.compare.tables import columns, csv_table, heading_of, latex_table, rows, scale_of
from vitrail.core.files import write_json, write_text
from vitrail.evaluation import Interval
from vitrail.figures.comparison import ScoreRow, comparison_figure
from vitrail.figures.save import save_figure
from vitrail.report.fronts import ParetoPoint, pareto_plot
from vitrail.report.stained_glass import window

AXES = {
    "params": ("parameters (millions)", 1e-6),
    "macs": ("MACs (millions)", 1e-6),
    "size_bytes": ("file (MB)", 1e-6),
}
"""Cost -> axis label, and factor to its unit; other costs are milliseconds in a runtime."""


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write all files of a comparison into its folder; return their paths.

    Raises:
        VitrailError: a file cannot be written.
    """
    paths = [folder / f"comparison.{suffix}" for suffix in ("json", "csv", "tex", "html", "png")]
    write_json(paths[0], comparison.to_dict())
    write_text(paths[1], csv_table(comparison))
    write_text(paths[2], latex_table(comparison))
    write_text(paths[3], _page(comparison, folder.name))
    save_figure(comparison_figure(*figure_data(comparison)), paths[4], dpi=110)
    return paths


def figure_data(comparison: Comparison) -> tuple[list[ScoreRow], str, str]:
    """The arguments of :func:`~vitrail.figures.comparison.comparison_figure`."""
    score, factor = comparison.score, scale_of(comparison.score)[0]

    def scaled(found: Interval) -> Interval:
        return Interval(mean=factor * found.mean, low=factor * found.low, high=factor * found.high)

    rows = [
        ScoreRow(
            label=cell.label,
            scores=[factor * value for value in cell.scores],
            mean=factor * cell.interval.mean,
            difference=scaled(cell.difference.interval) if cell.difference is not None else None,
        )
        for cell in comparison.cells
    ]
    unit = "points" if score.percent else "difference"
    against = f"{unit} against '{comparison.baseline}', 95 % interval"
    return rows, f"{heading_of(score)}: seeds and their mean", against


def _page(comparison: Comparison, name: str) -> str:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("vitrail.compare"), PackageLoader("vitrail.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("comparison.html.j2").render(
        name=name,
        window=window(name),
        result=comparison,
        columns=columns(comparison),
        rows=rows(comparison),
        charts=[_chart(comparison, cost) for cost, front in comparison.fronts.items() if front],
        recipe=yaml.safe_dump(_recipe(comparison), sort_keys=False, allow_unicode=True),
        contended=any(row.contended for cell in comparison.cells for row in cell.measurements),
    )


def _recipe(comparison: Comparison) -> dict[str, Any]:
    ways = {cell.quantization["name"]: cell.quantization for cell in comparison.cells if cell.quantization}
    plain = [{k: v for k, v in way.items() if v is not None} for way in ways.values()]
    return comparison.training | ({"quantization": json.loads(json.dumps(plain))} if plain else {})


def _chart(comparison: Comparison, cost: str) -> Markup:
    """The score over a cost, with the Pareto front."""
    axis, unit = AXES.get(cost, (f"processor time of an image (ms), {cost.partition(' ')[2]}", 1.0))
    score, front = comparison.score, comparison.fronts[cost]
    points = [
        ParetoPoint(
            label=cell.name,
            group=cell.model,
            cost=value * unit,
            quality=scale_of(score)[0] * cell.interval.mean,
            on_front=cell.name in front,
        )
        for cell in comparison.cells
        if (value := cell.cost(cost)) is not None
    ]
    title = score.title[:1].upper() + score.title[1:]
    alt = f"{title} over {axis}. On the Pareto front: {', '.join(front)}."
    return pareto_plot(cost.replace(" ", "-"), alt, points, axis, f"{heading_of(score)}, mean over seeds")
