"""The files of a check: a page with pictures, tables of what was found and of what to relabel, everything as JSON."""

from __future__ import annotations

import base64
import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, ImageDraw

from vitrail.core.errors import DataError, VitrailError
from vitrail.core.files import write_json, write_text
from vitrail.data import decode_image
from vitrail.report.stained_glass import window
from vitrail.soundness import Example, Finding, Soundness
from vitrail.soundness.soundness import amount

MOST_SHOWN = 24
"""Cases of a finding that the page shows; the tables have all of them."""

MOST_ROWS = 50
"""Rows of a table on the page."""

SIDE = 160
"""Longer side of a picture in pixels."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case with its pictures.

    Attributes:
        files: names of the images.
        pictures: data URIs, one an image; "" where it cannot be shown.
        note: what is to be seen.
    """

    files: Sequence[str]
    pictures: Sequence[str]
    note: str


def require_folder(folder: Path) -> None:
    """Refuse, before the long part, a folder that cannot be written. It is not made yet: it may lie in the data.

    Raises:
        VitrailError: it is a file, or not writable.
    """
    there = next((one for one in (folder, *folder.absolute().parents) if one.exists()), folder)
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "is not writable" if there.is_dir() else "is a file"
        raise VitrailError(f"cannot write to {folder}: {there} {reason}; choose another folder with --out")


def write_soundness(found: Soundness, folder: Path) -> list[Path]:
    """Write ``check.html``, ``check.json``, ``findings.csv`` and, where labels were judged, ``relabel.csv``.

    The page loads nothing from the network or from disk; names of files and classes are escaped.

    Returns:
        the files, the page first.

    Raises:
        VitrailError: a file cannot be written.
    """
    page, values, table = folder / "check.html", folder / "check.json", folder / "findings.csv"
    write_json(values, found.to_dict())
    write_text(table, _csv(("finding", "serious", "file", "other_file", "note"), _finding_rows(found)))
    written = [page, values, table]
    if found.labels_judged:
        relabel = folder / "relabel.csv"
        rows = [(one.file, one.part, one.label, one.suggested, f"{one.score:.4f}") for one in found.relabel]
        write_text(relabel, _csv(("file", "part", "label", "suggested_label", "score"), rows))
        written.append(relabel)
    write_text(page, _page(found))
    return written


def _finding_rows(found: Soundness) -> Iterable[tuple[str, ...]]:
    for finding in found.findings:
        for example in finding.examples or (Example(files=(), note=f"{finding.title}. {finding.text}"),):
            first, second, *_ = (*example.files, "", "")
            yield finding.name, "yes" if finding.serious else "no", first, second, example.note


def _csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _page(found: Soundness) -> str:
    environment = Environment(
        loader=PackageLoader("vitrail.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values = found.to_dict()
    return environment.get_template("soundness.html.j2").render(
        name=values["data"],
        window=window(found.data),
        found=values,
        serious=len(found.serious),
        sections=[(finding, _cases(found, finding)) for finding in found.findings],
        most_rows=MOST_ROWS,
        parts={"train": "training", "val": "validation", "test": "test", "": "no part"},
    )


def _cases(found: Soundness, finding: Finding) -> list[Case]:
    """The first cases; those without images are lines of text."""
    most = MOST_SHOWN if any(example.files for example in finding.examples) else MOST_ROWS
    return [_case(found, example) for example in finding.examples[:most]]


def _case(found: Soundness, example: Example) -> Case:
    pictures = [_picture(found, name, example.box if place == 0 else None) for place, name in enumerate(example.files)]
    return Case(files=[*map(_text, example.files)], pictures=pictures, note=_text(example.note))


def _text(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _picture(found: Soundness, name: str, box: tuple[float, float, float, float] | None) -> str:
    source = found.sources.get(name)
    if source is None:
        return ""
    try:
        pixels = decode_image(source, careful=True)
    except DataError:
        return ""
    image = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
    scale = min(SIDE / max(image.size), 1.0)
    image.thumbnail((SIDE, SIDE))
    if box is not None:
        left, top, right, bottom = (value * scale for value in box)
        place = (left, top, max(right, left + 2), max(bottom, top + 2))  # a tiny object is still to be seen
        ImageDraw.Draw(image).rectangle(place, outline=(220, 38, 63), width=2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def summary_lines(found: Soundness) -> list[str]:
    """What was understood, in a few sentences for a terminal."""
    known = found.understood
    counts = ", ".join(f"{count} {part}" for part, count in known.parts.items() if part)
    parts = f" ({counts})" if counts else ", in no parts"
    words = ("keypoint", "keypoints") if known.counted == "keypoints" else ("class", "classes")
    classes = f", {amount(len(known.classes), *words)}" if known.classes else ""
    size = (
        _size(known.median)
        if known.num_sizes == 1
        else (f"{_size(known.smallest)} to {_size(known.largest)}, usually {_size(known.median)}")
    )
    kinds = ", ".join(f"{kind} {count}" if len(known.kinds) > 1 else kind for kind, count in known.kinds.items())
    lines = [
        f"{_text(found.data)}: {found.task}, {amount(known.num_images, 'image', 'images')}{parts}{classes}",
        f"Pixels: {size}; {kinds}",
        *known.notes,
    ]
    if found.others:
        lines.append(f"It may be meant for another task, too: --task {' or --task '.join(found.others)}")
    return lines


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def finding_lines(found: Soundness, most: int) -> list[str]:
    """The findings for a terminal: a title, what follows from it, and the first ``most`` cases."""
    lines = []
    for finding in found.findings:
        lines.append(f"{'!!' if finding.serious else ' -'} {finding.title}")
        lines.append(f"     {finding.text}")
        for example in finding.examples[:most]:
            lines.append(f"     {_text(_line(example))}")
        if len(finding.examples) > most:
            lines.append(f"     and {len(finding.examples) - most} more")
    return lines


def _line(example: Example) -> str:
    files = " = ".join(example.files)
    return f"{files} ({example.note})" if files and example.note else files or example.note


def to_json(found: Soundness, files: Sequence[Path]) -> dict[str, Any]:
    """The document for scripts: the result, and the files that were written."""
    return found.to_dict() | {"serious": len(found.serious), "files": [str(path) for path in files]}
