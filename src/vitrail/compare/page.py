"""A comparison's files: ``comparison.json``, ``.csv``, ``.tex``, ``.html`` and ``.png``."""

from __future__ import annotations

from pathlib import Path

import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitrail.compare.collect import Comparison
from vitrail.compare.figures import comparison_figure
from vitrail.compare.tables import columns, csv_table, latex_table, rows
from vitrail.core.files import atomic_path, write_json, write_text
from vitrail.report.fronts import ParetoPoint, pareto_plot
from vitrail.report.window import window


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
        charts=[_chart(comparison, cost) for cost in comparison.fronts],
        recipe=yaml.safe_dump(comparison.training, sort_keys=False, allow_unicode=True),
        contended=any(row.contended for cell in comparison.cells for row in cell.measurements),
    )


def _chart(comparison: Comparison, cost: str) -> Markup:
    """Top-1 over a cost, with the front that nobody beats."""
    axis, front = axis_of(cost), comparison.fronts[cost]
    points = [
        ParetoPoint(
            label=cell.name,
            group=cell.model,
            cost=value,
            quality=100 * cell.interval.mean,
            on_front=cell.name in front,
        )
        for cell in comparison.cells
        if (value := _cost(comparison, cell.name, cost)) is not None
    ]
    alt = f"Top-1 over {axis}. Nobody beats: {', '.join(front)}."
    return pareto_plot(cost.replace(" ", "-"), alt, points, axis, "top-1 (%), mean over seeds")


def axis_of(cost: str) -> str:
    """A key of ``Comparison.fronts`` in words."""
    words = {"params": "parameters (millions)", "macs": "MACs (millions)"}
    return words.get(cost, f"processor time of an image (ms), {cost.partition(' ')[2]}")


def _cost(comparison: Comparison, name: str, cost: str) -> float | None:
    cell = next(cell for cell in comparison.cells if cell.name == name)
    if cost in ("params", "macs"):
        return float(getattr(cell, cost)) / 1e6
    return next(row.cpu_ms_median for row in cell.measurements if cost == f"cpu_ms {row.runtime}")
