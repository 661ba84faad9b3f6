"""Charts as inline SVG in the colours and the font of the page, light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Palette:
    """Colours of a chart: text, secondary text, lines, background, and five for the series."""

    ink: str
    muted: str
    line: str
    paper: str
    glass: tuple[str, ...]


INK, MUTED, LINE, PAPER = "#010203", "#020304", "#030405", "#040506"
GLASS = ("#050607", "#060708", "#070809", "#08090a", "#090a0b")
PAGE = Palette(INK, MUTED, LINE, PAPER, GLASS)
"""Placeholder colours; :func:`page_svg` replaces them by the CSS variables of the page."""

PRINT = Palette("#1f1c19", "#6b645c", "#e2dcd1", "#ffffff", ("#1d4e89", "#a4243b", "#c8801a", "#2c7a5a", "#6a4791"))
"""Colours of the light page, for files outside the page."""

VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", PAPER: "--paper"} | {
    colour: f"--glass-{number}" for number, colour in enumerate(GLASS, 1)
}
MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def style(palette: Palette) -> dict[Any, Any]:
    """Settings of matplotlib."""
    return {
        "svg.fonttype": "none",  # text can be searched, copied and read aloud
        "svg.hashsalt": "vitrail",  # equal reports have equal bytes
        "font.size": 11,
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": palette.line,
        "axes.labelcolor": palette.muted,
        "axes.titlesize": 12,
        "axes.titlelocation": "left",
        "axes.titlecolor": palette.ink,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": palette.line,
        "grid.linewidth": 0.6,
        "xtick.color": palette.muted,
        "ytick.color": palette.muted,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "text.color": palette.ink,
        "legend.frameon": False,
        "lines.linewidth": 2,
    }


def curves(
    name: str,
    title: str,
    alt: str,
    epochs: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    percent: bool = False,
) -> Markup:
    """Lines over epochs, with a legend if there are several."""

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

    return page_svg(name, alt, (4.6, 3.1), plot)


def share_lines(
    name: str, alt: str, x: str, y: str, lines: Mapping[str, Sequence[Sequence[float]]], *, size: tuple[float, float]
) -> Markup:
    """Lines of (x, y) shares, in percent, with a legend if there are several."""

    def plot(axes: Axes) -> None:
        for number, (label, points) in enumerate(lines.items()):
            places = [100 * x for x, _ in points], [100 * y for _, y in points]
            marker = MARKERS[number % len(MARKERS)] if len(points) < 3 else None
            style = "-" if number < len(GLASS) else "--"
            axes.plot(*places, color=GLASS[number % len(GLASS)], label=_plain(label), marker=marker, linestyle=style)
        axes.set(ylim=(-2, 103), xlabel=f"{x} (%)", ylabel=f"{y} (%)")
        axes.margins(x=0.02)
        if len(lines) > 1:
            axes.legend()

    return page_svg(name, alt, size, plot)


def _plain(label: str, limit: int = 28) -> str:
    """A name of the user's as it is: no formula, not left out of a legend, and not too long."""
    short = label if len(label) <= limit else label[: limit - 1] + "…"
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")  # what begins so is left out of legends


def reliability_diagram(name: str, alt: str, series: Mapping[str, Sequence[Mapping[str, float]]]) -> Markup:
    """Accuracy over confidence; on the diagonal the two are equal."""

    def plot(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        for number, (label, bins) in enumerate(series.items()):
            places = [100 * one["confidence"] for one in bins], [100 * one["accuracy"] for one in bins]
            axes.plot(*places, color=GLASS[number % len(GLASS)], label=label, marker=MARKERS[number % len(MARKERS)])
        axes.set(xlim=(0, 101), ylim=(0, 103), xlabel="confidence (%)", ylabel="accuracy (%)")
        axes.legend(loc="upper left")

    return page_svg(name, alt, (4.6, 4.0), plot)


def page_svg(name: str, alt: str, size: tuple[float, float], plot: Callable[[Axes], None]) -> Markup:
    """Draw on new axes with ``plot``; return the SVG with unique ids and an alternative text."""
    with rc_context(style(PAGE)):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        plot(axes)
        buffer = io.StringIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # the browser has another font
            figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Markup(_for_page(buffer.getvalue(), name, alt))


def _for_page(svg: str, name: str, alt: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg, count=2)  # HTML needs no namespaces
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    svg = re.sub(r'\b(width|height)="[\d.]+pt"', "", svg, count=2)  # the page sets the size
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # its rules would apply to the whole page
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    label = Markup('role="img" aria-label="{}"').format(alt)
    return svg.replace("<svg", f"<svg {label}", 1).strip()
