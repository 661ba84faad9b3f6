"""The HTML page of ``vitrail probe``: table, learning curve, and a map of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes

from vitrail.core.files import write_text
from vitrail.core.paths import typed_path
from vitrail.evaluation import Interval
from vitrail.evaluation.feature_map import place_on_map
from vitrail.report.charts import GLASS, MARKERS, page_svg
from vitrail.report.stained_glass import window
from vitrail.report.written import MISSING, megabytes, number, percent
from vitrail.runs.examples import picture
from vitrail.runs.probe_results import ProbedImages, ProbeReport, ProbeRow
from vitrail.runs.run import Run

MOST_POINTS = 1200
"""Images on the map; more would make a page of many megabytes."""

MOST_MISTAKES = 24
"""Wrong answers with pictures."""

SIDE = 56
"""Longer side in pixels of the pictures on the map."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """An image on the map.

    Attributes:
        x, y: place in percent of the map, from the upper left.
        hue: colour of the class, in degrees.
        name: name of the image.
        label: its class.
        answer: class that a probe answers which has not seen it; "" where it was not held out.
        probability: probability of this answer.
        picture: base64 of a small JPEG.
    """

    x: float
    y: float
    hue: int
    name: str
    label: str
    answer: str
    probability: float
    picture: str

    @property
    def wrong(self) -> bool:
        """Whether the answer is another class."""
        return bool(self.answer) and self.answer != self.label


def write_probe_page(report: ProbeReport, run: Run) -> Path:
    """Write ``run.probe_page``: one page without scripts that loads nothing from the network or from disk.

    Raises:
        VitrailError: the page cannot be written, or an image has vanished.
    """
    environment = Environment(
        loader=PackageLoader("vitrail.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, number=number, megabytes=megabytes, interval=accuracy_text)
    points, method = map_points(report.images, report.classes)
    mistakes = sorted((point for point in points if point.wrong), key=lambda point: -point.probability)
    html = environment.get_template("probe.html.j2").render(
        report=report,
        name=Path(report.source).resolve().name or report.source,
        window=window(report.source),
        folder=typed_path(run.folder),
        points=points,
        method=method,
        hues=hues(len(report.classes)),
        mistakes=mistakes[:MOST_MISTAKES],
        num_mistakes=len(mistakes),
        curve=_curve(report.rows),
    )
    with run.writing():
        write_text(run.probe_page, html)
    return run.probe_page


def accuracy_text(found: Interval | None) -> str:
    """``81.2 % ± 2.1``: a share with the longer half of its 95 % interval; a dash without one."""
    if found is None:
        return MISSING
    return f"{100 * found.mean:.1f} % ± {100 * max(found.high - found.mean, found.mean - found.low):.1f}"


def hues(count: int) -> list[int]:
    """A hue in degrees for each class; neighbours differ much."""
    return [round(index * 137.508) % 360 for index in range(count)]


def map_points(images: ProbedImages, classes: Sequence[str]) -> tuple[list[Point], str]:
    """The images on the map, and the name of the method; many images are thinned out, the mistakes last."""
    answers = images.answers
    wrong = answers.judged & (answers.linear[0] != answers.labels)
    order = np.concatenate([np.flatnonzero(wrong), np.random.default_rng(0).permutation(np.flatnonzero(~wrong))])
    chosen = np.sort(order[:MOST_POINTS])
    places, method = place_on_map(images.features[chosen])
    colours = hues(len(classes))
    points = []
    for (x, y), index in zip(places.tolist(), chosen.tolist(), strict=True):
        label, answer = int(answers.labels[index]), int(answers.linear[0, index])
        points.append(
            Point(
                x=round(100 * x, 2),
                y=round(100 * (1 - y), 2),
                hue=colours[label],
                name=images.samples.names[index],
                label=classes[label],
                answer=classes[answer] if answer >= 0 else "",
                probability=float(answers.confidence[index]),
                picture=picture(images.samples[index][0], SIDE),
            )
        )
    return points, method


def _curve(rows: Sequence[ProbeRow]) -> Markup | None:
    """Accuracy over the number of labels of a class; None where there are fewer than two points."""
    shown = [row for row in rows if len(row.curve) > 1][: len(GLASS)]
    if not shown:
        return None

    def plot(axes: Axes) -> None:
        for place, row in enumerate(shown):
            labels = [point.per_class for point in row.curve]
            means = np.array([100 * point.mean for point in row.curve])
            spread = np.array([100 * float(np.std(point.top1)) for point in row.curve])
            axes.plot(labels, means, color=GLASS[place], marker=MARKERS[place], label=row.label)
            axes.fill_between(labels, means - spread, means + spread, color=GLASS[place], alpha=0.15, linewidth=0)
        ticks = [point.per_class for point in shown[0].curve]
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        axes.minorticks_off()
        axes.set(xlabel="labelled images of a class", ylabel="right answers (%)")
        if len(shown) > 1:
            axes.legend(loc="lower right")

    last = ", ".join(f"{row.label} ends at {100 * row.curve[-1].mean:.1f} %" for row in shown)
    return page_svg("labels", f"Accuracy of the linear probe over the number of labels: {last}.", (6.6, 3.4), plot)
