"""A comparison's files: ``comparison.json``, ``.csv``, ``.tex``, ``.html`` and ``.png``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitrail.compare.collect import Comparison
from vitrail.compare.figures import comparison_figure
from vitrail.compare.tables import columns, csv_table, heading_of, latex_table, rows, scale_of
from vitrail.core.files import atomic_path, write_json, write_text
from vitrail.report.fronts import ParetoPoint, pareto_plot
from vitrail.report.window import window

AXES = {
    "params": ("parameters (millions)", 1e-6),
    "macs": ("MACs (millions)", 1e-6),
    "size_bytes": ("file (MB)", 1e-6),
}
"""Cost -> in words, and the factor to their unit; other costs are milliseconds in a runtime."""


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write all files of a comparison into its folder; returns their paths.

    Raises:
        VitrailError: a file cannot be written.
    """
    paths = [folder / f"comparison.{suffix}" for suffix in ("json", "csv", "tex", "html", "png")]
    write_json(paths[0], comparison.to_dict())
    write_text(paths[1], csv_table(comparison))
    write_text(paths[2], latex_table(comparison))
    write_text(paths[3], _page(comparison, folder.name))
    with atomic_path(paths[4]) as temporary:
        comparison_figure(comparison).savefig(temporary, dpi=110)
    return paths


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
    """The score over a cost, with the front that nobody beats."""
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
    alt = f"{title} over {axis}. Nobody beats: {', '.join(front)}."
    return pareto_plot(cost.replace(" ", "-"), alt, points, axis, f"{heading_of(score)}, mean over seeds")
