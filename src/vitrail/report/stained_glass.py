"""The stained-glass band at the head of the page; each data set has its own."""

from __future__ import annotations

import hashlib
import random

from markupsafe import Markup

COLUMNS, ROWS = 26, 3
WIDTH, HEIGHT = 1040.0, 120.0


def window(key: str) -> Markup:
    """A decorative SVG of leaded panes whose shapes and colours follow from ``key``."""
    draw = random.Random(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest())
    step_x, step_y = WIDTH / COLUMNS, HEIGHT / ROWS

    def corner(column: int, row: int) -> tuple[float, float]:
        inner_x, inner_y = 0 < column < COLUMNS, 0 < row < ROWS
        x = column * step_x + (draw.uniform(-0.42, 0.42) * step_x if inner_x else 0)
        return x, row * step_y + (draw.uniform(-0.35, 0.35) * step_y if inner_y else 0)

    corners = [[corner(column, row) for column in range(COLUMNS + 1)] for row in range(ROWS + 1)]
    panes = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            a, b = corners[row][column], corners[row][column + 1]
            c, d = corners[row + 1][column + 1], corners[row + 1][column]
            halves: list[tuple[tuple[float, float], ...]] = [(a, b, c, d)]
            if draw.random() < 0.45:  # some panes are cut along a diagonal
                halves = [(a, b, c), (a, c, d)] if draw.random() < 0.5 else [(a, b, d), (b, c, d)]
            panes += [_pane(half, draw) for half in halves]
    return Markup(
        f'<svg class="window" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" preserveAspectRatio="xMidYMid slice" '
        f'aria-hidden="true" focusable="false">{"".join(panes)}</svg>'
    )


def _pane(points: tuple[tuple[float, float], ...], draw: random.Random) -> str:
    # Blue is the most frequent colour, as in the windows of Chartres.
    colour = draw.choices((1, 2, 3, 4, 5), weights=(9, 3, 4, 3, 3))[0]
    shape = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon points="{shape}" class="g{colour}" opacity="{draw.uniform(0.55, 1):.2f}"/>'
