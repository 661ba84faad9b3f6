"""Charts as inline SVG that takes its colours and its font from the page, so that it follows dark and light."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, MUTED, LINE, PAPER = "#010203", "#020304", "#030405", "#040506"
GLASS = ("#050607", "#060708", "#070809", "#08090a", "#090a0b")
"""Colours that stand for the page's; :func:`_draw` puts its variables in their places."""

VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", PAPER: "--paper"} | {
    colour: f"--glass-{number}" for number, colour in enumerate(GLASS, 1)
}
MARKERS = ("o", "s", "D", "^", "v", "P", "X")

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and read aloud
    "svg.hashsalt": "vitrail",  # the same report twice gives the same bytes
    "font.size": 11,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 2,
}


@dataclass(frozen=True, kw_only=True)
class ParetoPoint:
    """A candidate in the plot of accuracy over cost.

    Attributes:
        label: e.g. "openvino int8".
        group: points of a group share a marker.
        cost, quality: to minimise, to maximise.
        on_front: nobody beats it.
    """

    label: str
    group: str
    cost: float
    quality: float
    on_front: bool


def curves(
    name: str,
    title: str,
    alt: str,
    epochs: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    percent: bool = False,
) -> Markup:
    """Lines over epochs, each with its name in a legend where there are several."""

    def plot(axes: Axes) -> None:
        for colour, (label, values) in zip(GLASS * len(lines), lines.items(), strict=False):
            scaled = [100 * value for value in values] if percent else list(values)
            axes.plot(epochs, scaled, color=colour, label=label, marker="o" if len(scaled) < 3 else None)
        axes.set_title(title + (" (%)" if percent else ""))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.margins(x=0.02)
        if len(lines) > 1:
            axes.legend()

    return _draw(name, alt, (4.6, 3.1), plot)


def reliability_diagram(name: str, alt: str, series: Mapping[str, Sequence[Mapping[str, float]]]) -> Markup:
    """Accuracy over confidence; the diagonal is a model that is right as often as it says."""

    def plot(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        for number, (label, bins) in enumerate(series.items()):
            places = [100 * one["confidence"] for one in bins], [100 * one["accuracy"] for one in bins]
            axes.plot(*places, color=GLASS[number % len(GLASS)], label=label, marker=MARKERS[number % len(MARKERS)])
        axes.set(xlim=(0, 101), ylim=(0, 103), xlabel="confidence (%)", ylabel="accuracy (%)")
        axes.legend(loc="upper left")

    return _draw(name, alt, (4.6, 4.0), plot)


def pareto_plot(name: str, alt: str, points: Sequence[ParetoPoint], cost: str, quality: str) -> Markup:
    """Accuracy over cost: the front in colour and joined by steps, what it dominates in grey."""
    groups = list(dict.fromkeys(point.group for point in points))

    def plot(axes: Axes) -> None:
        front = sorted((p for p in points if p.on_front), key=lambda p: (p.cost, p.quality))
        axes.step([p.cost for p in front], [p.quality for p in front], where="post", color=GLASS[0], linewidth=1.2)
        for point in points:
            marker = MARKERS[groups.index(point.group) % len(MARKERS)]
            colour = GLASS[1] if point.on_front else MUTED
            axes.plot(point.cost, point.quality, marker, color=colour, markeredgecolor=PAPER, markersize=9)
        axes.margins(x=0.3, y=0.35)
        axes.set(xlabel=cost, ylabel=quality)
        _label(axes, points)

    return _draw(name, alt, (6.6, 3.8), plot)


def _label(axes: Axes, points: Sequence[ParetoPoint]) -> None:
    """Names beside the points, each at the nearest height where it covers no other name; lengths are estimated."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # settles the axes, which places in points depend on
    taken: list[tuple[float, float, float]] = []
    for point in sorted(points, key=lambda p: (not p.on_front, p.cost)):
        x, y = axes.transData.transform((point.cost, point.quality)) * 72 / figure.dpi
        width = 5.6 * len(point.label)
        for rise in (8, -16, 22, -30, 36, -44, 50, -58):
            if all(abs(y + rise - v) > 11 or x + width < left or right < x for left, right, v in taken):
                break
        taken.append((x, x + width, y + rise))
        axes.annotate(
            point.label,
            (point.cost, point.quality),
            (6, rise),
            textcoords="offset points",
            fontsize=9,
            color=INK if point.on_front else MUTED,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6} if abs(rise) > 16 else None,
        )


def _draw(name: str, alt: str, size: tuple[float, float], plot: Callable[[Axes], None]) -> Markup:
    """Run ``plot`` on fresh axes and give the SVG, with ids of its own and a text for those who do not see it."""
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        plot(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Markup(_for_page(buffer.getvalue(), name, alt))


def _for_page(svg: str, name: str, alt: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg, count=2)  # HTML knows what <svg> is
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    svg = re.sub(r'\b(width|height)="[\d.]+pt"', "", svg, count=2)  # the page decides; the shape is in viewBox
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    label = Markup('role="img" aria-label="{}"').format(alt)
    return svg.replace("<svg", f"<svg {label}", 1).strip()
