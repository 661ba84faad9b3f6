"""A flowchart of Mermaid as levels of boxes, for pages that load no script.

GitHub draws the chart itself. Mermaid's script is 3 MB, and MkDocs Material would load it from elsewhere.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape
from itertools import pairwise

CHART = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BOX = re.compile(r'^\s*(\w+)\["([^"]*)"\]$')
ROW = '<div style="display:flex;flex-wrap:wrap;gap:.4rem;justify-content:center;align-items:stretch">'
CELL = '<span style="border:1px solid currentColor;border-radius:.2rem;padding:.2rem .6rem;font-size:.7rem">'
ARROW = '<div style="text-align:center;line-height:1">↓</div>'


def with_levels(markdown: str) -> str:
    """A page with its flowcharts as boxes."""
    return CHART.sub(lambda chart: drawn(chart[1]), markdown)


def drawn(chart: str) -> str:
    """Boxes in HTML, level by level: what leads to others stands above them.

    Raises:
        ValueError: the chart has a line that is not understood, or goes in a circle.
    """
    first, *lines = chart.strip().splitlines()
    if first.split() != ["flowchart", "TB"]:
        raise ValueError(f"a chart begins with {first!r}; flowchart TB can be drawn")
    titles, below = _read(lines)

    @cache
    def height(name: str) -> int:
        return 1 + max((height(one) for one in below[name]), default=-1)

    try:
        heights = {name: height(name) for name in titles}
    except RecursionError as error:
        raise ValueError("a flowchart goes in a circle, which has no levels") from error
    rows = []
    for level in range(max(heights.values()), -1, -1):
        cells = [f"{CELL}{_title(titles[name])}</span>" for name in titles if heights[name] == level]
        rows.append(f"{ROW}{''.join(cells)}</div>")
    return f"<div>{ARROW.join(rows)}</div>"


def _read(lines: list[str]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Name -> title of every box, and -> the boxes that it leads to."""
    titles: dict[str, str] = {}
    edges: list[list[list[str]]] = []
    for line in lines:
        if box := BOX.match(line):
            titles[box[1]] = box[2]
        else:
            edges.append([[name.strip() for name in group.split("&")] for group in line.split("-->")])
    below: dict[str, set[str]] = {name: set() for name in titles}
    for groups in edges:
        for name in (name for group in groups for name in group):
            if name not in titles:
                raise ValueError(f"a flowchart has {name!r}, which is no box of it")
        for sources, targets in pairwise(groups):
            for source in sources:
                below[source].update(targets)
    return titles, below


def _title(text: str) -> str:
    name, colon, rest = text.partition(":")
    return f"<strong>{escape(name)}</strong>{colon}{escape(rest)}"
