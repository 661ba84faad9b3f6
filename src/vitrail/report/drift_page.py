"""The files of a drift: a page with the most unusual images, a table of all of them, everything as JSON."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from vitrail.core.errors import DataError
from vitrail.core.files import write_json, write_text
from vitrail.data import decode_image
from vitrail.report.stained_glass import window
from vitrail.report.written import number, percent
from vitrail.runs.drift import Drift, NewImage
from vitrail.runs.examples import picture
from vitrail.runs.run import Run

MOST_SHOWN = 24
"""Images that the page shows; the table has all of them."""

SIDE = 160
"""Longer side of a picture in pixels."""


@dataclass(frozen=True, kw_only=True)
class ShownImage:
    """A new image on the page.

    Attributes:
        jpeg: base64 of its picture; "" where it cannot be shown.
        file: its path.
        note: score and answer.
        unusual: whether it has a frame.
    """

    jpeg: str
    file: str
    note: str
    unusual: bool


def write_drift(drift: Drift, run: Run, folder: Path) -> list[Path]:
    """Write ``drift.html``, ``drift.json`` and ``drift.csv``, one row an image, the most unusual first.

    The page loads nothing from the network or from disk; names are escaped.

    Returns:
        the files, the page first.

    Raises:
        VitrailError: a file cannot be written.
    """
    page, values, table = folder / "drift.html", folder / "drift.json", folder / "drift.csv"
    write_json(values, drift.to_dict())
    write_text(table, _csv(drift))
    environment = Environment(
        loader=PackageLoader("vitrail.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, number=number)
    html = environment.get_template("drift.html.j2").render(
        name=run.folder.name,
        window=window(run.folder.name),
        drift=drift,
        shown=[_shown(image) for image in drift.images[:MOST_SHOWN]],
    )
    write_text(page, html)
    return [page, values, table]


def _csv(drift: Drift) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(drift.images[0].numbers)
    writer.writerow(["file", "outlier_score", "unusual", "answer", *names])
    for image in drift.images:
        figures = [f"{image.numbers[name]:.6g}" for name in names]
        writer.writerow(
            [image.file, f"{image.outlier_score:.6g}", "yes" if image.unusual else "no", image.answer, *figures]
        )
    return text.getvalue()


def _shown(image: NewImage) -> ShownImage:
    try:
        jpeg = picture(decode_image(Path(image.file), careful=True), SIDE)
    except (DataError, OSError):
        jpeg = ""
    answer = f", answered {image.answer}" if image.answer else ""
    file = image.file.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return ShownImage(jpeg=jpeg, file=file, note=f"score {image.outlier_score:.3g}{answer}", unusual=image.unusual)
