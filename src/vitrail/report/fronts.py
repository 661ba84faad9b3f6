"""Plots of accuracy over a cost: the Pareto front in colour, estimates hollow, published values as crosses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitrail.bench import pareto_front
from vitrail.figures.save import save_figure
from vitrail.report.charts import MARKERS, PAGE, PRINT, Palette, page_svg, style

PUBLISHED = "x"
SIZE = (6.6, 3.8)

LETTER_POINTS = 5.6
"""Width of a letter of a label, a little more than it is on the average."""

LABEL_GAP = 6


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


Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in points."""


def _label(axes: Axes, points: Sequence[ParetoPoint], palette: Palette) -> None:
    """Write each label at the nearest place in the plot where it covers neither a label nor a marker."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # fixes the axes, on which positions in points depend
    frame = axes.bbox.get_points() * 72 / figure.dpi
    places = [axes.transData.transform((point.cost, point.quality)) * 72 / figure.dpi for point in points]
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for index in sorted(range(len(points)), key=lambda i: (not points[i].on_front, points[i].cost)):
        point, (x, y) = points[index], places[index]
        others = [box for i, box in enumerate(taken) if i != index]
        right, rise = _place(x, y, LETTER_POINTS * len(point.text), frame[0], frame[1], others)
        taken.append(_box(x, y, LETTER_POINTS * len(point.text), right, rise))
        axes.annotate(
            point.text,
            (point.cost, point.quality),
            (LABEL_GAP if right else -LABEL_GAP, rise),
            textcoords="offset points",
            horizontalalignment="left" if right else "right",
            fontsize=9,
            color=palette.ink if point.on_front else palette.muted,
            arrowprops={"arrowstyle": "-", "color": palette.muted, "linewidth": 0.6} if abs(rise) > 16 else None,
        )


def _place(x: float, y: float, width: float, low: Any, high: Any, taken: Sequence[Box]) -> tuple[bool, float]:
    """Whether the label goes to the right of its point, and how far above it; the place that covers least."""
    steps = [8.0, -16.0] + [sign * (22 + 14 * step) for step in range(20) for sign in (1, -1)]

    def cost(place: tuple[bool, float]) -> float:
        left, bottom, right, top = _box(x, y, width, *place)
        outside = max(low[0] - left, 0) + max(right - high[0], 0) + max(low[1] - bottom, 0) + max(top - high[1], 0)
        shared = [
            max(min(right, box[2]) - max(left, box[0]), 0) * max(min(top, box[3]) - max(bottom, box[1]), 0)
            for box in taken
        ]
        return outside * LETTER_POINTS + sum(shared)

    return min(((right, rise) for rise in steps for right in (True, False)), key=cost)


def _box(x: float, y: float, width: float, right: bool, rise: float) -> Box:
    left = x + LABEL_GAP if right else x - LABEL_GAP - width
    return left, y + rise - 2, left + width, y + rise + 9
