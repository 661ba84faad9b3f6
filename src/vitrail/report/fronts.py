"""Plots of accuracy over a cost: the Pareto front in colour, estimates hollow, published values as crosses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitrail.bench import pareto_front
from vitrail.figures.save import save_figure
from vitrail.report.charts import MARKERS, PAGE, PRINT, Palette, page_svg, style

PUBLISHED = "x"
SIZE = (6.6, 3.8)


@dataclass(frozen=True, kw_only=True)
class ParetoPoint:
    """A candidate in the plot of accuracy over cost.

    Attributes:
        label: name of the candidate, e.g. "openvino int8".
        group: name of the group; the points of a group share a marker.
        cost, quality: value to minimise, value to maximise.
        on_front: True on the Pareto front.
        estimated: True if the cost was not measured; the marker is hollow and the label ends in "(estimated)".
        published: True for a value from a publication; it is never on the front.
    """

    label: str
    group: str
    cost: float
    quality: float
    on_front: bool = False
    estimated: bool = False
    published: bool = False

    @property
    def text(self) -> str:
        """The label in the plot."""
        return self.label + (" (estimated)" if self.estimated else "") + (" (published)" if self.published else "")


def with_fronts(points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """Mark the points on the front; measured values and estimates have separate fronts.

    An estimate may be wrong by a factor, so it is not compared with measured values.
    """
    best: set[int] = set()
    for estimated in (False, True):
        rivals = [i for i, point in enumerate(points) if point.estimated is estimated and not point.published]
        best |= {rivals[i] for i in pareto_front([(points[i].cost, points[i].quality) for i in rivals])}
    return [
        ParetoPoint(
            label=p.label,
            group=p.group,
            cost=p.cost,
            quality=p.quality,
            on_front=i in best,
            estimated=p.estimated,
            published=p.published,
        )
        for i, p in enumerate(points)
    ]


def pareto_plot(name: str, alt: str, points: Sequence[ParetoPoint], cost: str, quality: str) -> Markup:
    """The plot as SVG in the colours of the page."""
    return page_svg(name, alt, SIZE, lambda axes: _plot(axes, points, cost, quality, PAGE))


def save_pareto_plot(path: Path, points: Sequence[ParetoPoint], cost: str, quality: str) -> None:
    """Save the plot as PNG or SVG, by the suffix of ``path``."""
    with rc_context(style(PRINT)):
        figure = Figure(figsize=SIZE, layout="constrained")
        _plot(figure.add_subplot(), points, cost, quality, PRINT)
        save_figure(figure, path, dpi=200)


def _plot(axes: Axes, points: Sequence[ParetoPoint], cost: str, quality: str, palette: Palette) -> None:
    groups = list(dict.fromkeys(point.group for point in points if not point.published))
    for estimated, line in ((False, "-"), (True, (0, (4, 3)))):
        front = sorted(
            (p for p in points if p.on_front and p.estimated is estimated), key=lambda p: (p.cost, p.quality)
        )
        places = [p.cost for p in front], [p.quality for p in front]
        axes.step(*places, where="post", color=palette.glass[0], linewidth=1.2, linestyle=line)
    for point in points:
        if point.published:
            axes.plot(point.cost, point.quality, PUBLISHED, color=palette.muted, markersize=8, markeredgewidth=1.5)
            continue
        colour = palette.glass[1] if point.on_front else palette.muted
        hollow = {"markerfacecolor": palette.paper, "markeredgecolor": colour, "markeredgewidth": 1.6}
        look = hollow if point.estimated else {"color": colour, "markeredgecolor": palette.paper}
        marker = MARKERS[groups.index(point.group) % len(MARKERS)]
        axes.plot(point.cost, point.quality, marker=marker, linestyle="", markersize=9, **look)
    axes.margins(x=0.3, y=0.35)
    axes.set(xlabel=cost, ylabel=quality)
    _label(axes, points, palette)


def _label(axes: Axes, points: Sequence[ParetoPoint], palette: Palette) -> None:
    """Write each label at the nearest height where it covers no other label; text widths are estimated."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # fixes the axes, on which positions in points depend
    taken: list[tuple[float, float, float]] = []
    for point in sorted(points, key=lambda p: (not p.on_front, p.cost)):
        x, y = axes.transData.transform((point.cost, point.quality)) * 72 / figure.dpi
        width = 5.6 * len(point.text)
        for rise in (8, -16, 22, -30, 36, -44, 50, -58):
            if all(abs(y + rise - v) > 11 or x + width < left or right < x for left, right, v in taken):
                break
        taken.append((x, x + width, y + rise))
        axes.annotate(
            point.text,
            (point.cost, point.quality),
            (6, rise),
            textcoords="offset points",
            fontsize=9,
            color=palette.ink if point.on_front else palette.muted,
            arrowprops={"arrowstyle": "-", "color": palette.muted, "linewidth": 0.6} if abs(rise) > 16 else None,
        )
