"""Accuracy over a cost: what nobody beats in colour, the rest in grey, estimates hollow, published values crossed."""

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
        label: e.g. "openvino int8".
        group: points of a group share a marker.
        cost, quality: to minimise, to maximise.
        on_front: nobody beats it.
        estimated: the cost was not measured; it is drawn hollow, and its label says so.
        published: a value that somebody else gave, for orientation; never on the front.
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
        """The label as it is drawn."""
        return self.label + (" (estimated)" if self.estimated else "") + (" (published)" if self.published else "")


def with_fronts(points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """The points, with those on the front marked; measured values and estimates have a front each.

    An estimate may be wrong by a factor, so that it beats nothing that was measured, and the other way round.
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
    """The plot as SVG for a page, in the page's colours."""
    return page_svg(name, alt, SIZE, lambda axes: _plot(axes, points, cost, quality, PAGE))


def save_pareto_plot(path: Path, points: Sequence[ParetoPoint], cost: str, quality: str) -> None:
    """The plot as a file of its own, PNG or SVG by the suffix of ``path``."""
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
    """Names beside the points, each at the nearest height where it covers no other name; lengths are estimated."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # settles the axes, which places in points depend on
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
