"""Labels of a plot can be read: none lies over another, over a marker, or outside."""

from __future__ import annotations

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from vitrail.report.charts import PRINT
from vitrail.report.fronts import SIZE, ParetoPoint, _plot

ALIKE = [("onnxruntime int8", 1.0), ("openvino int8", 1.02), ("onnxruntime float", 1.05), ("openvino float", 1.1)]


@pytest.mark.parametrize(
    "places",
    [
        [(name, cost, 97.0) for name, cost in ALIKE],
        [(f"a run of a long name/{name}", cost, 97.0) for name, cost in ALIKE],
        [
            *((name, cost, 97.0) for name, cost in ALIKE),
            ("torch float", 40.0, 97.0),
            ("torch-compile float", 39.0, 97.0),
        ],
        [(f"candidate {i}", 1 + i / 100, 90 + i / 10) for i in range(10)],
        [("a", 1.0, 50.0), ("b", 1.0, 50.0), ("c", 1.0, 50.0)],
    ],
)
def test_labels_do_not_overlap(places: list[tuple[str, float, float]]) -> None:
    figure = Figure(figsize=SIZE, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = [ParetoPoint(label=n, group=n, cost=c, quality=q, on_front=i == 0) for i, (n, c, q) in enumerate(places)]
    _plot(axes, points, "latency", "top-1", PRINT)
    canvas.draw()
    boxes = [Text.get_window_extent(text, canvas.get_renderer()) for text in axes.texts]  # without its arrow
    frame = figure.bbox
    assert len(boxes) == len(places)
    inner = [box.shrunk(0.98, 0.9) for box in boxes]
    assert not [(a, b) for a, b in itertools.combinations(inner, 2) if a.overlaps(b)]
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)
