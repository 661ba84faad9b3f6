"""Pictures of a run, embedded in the page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.core.files import read_bytes
from vitrail.evaluation import GROUPS
from vitrail.runs.robustness import read_robustness
from vitrail.runs.run import Run

EXPLAINED = {
    "attention": "Attention and Grad-CAM on each image; every picture has its own scale",
    "distances": "Mean attention distance of every head",
    "collapse": "Similarity of the tokens of each level, and their effective rank",
    "receptive_fields": "Receptive field of the central token of each level",
    "filters": "Principal components of the patch filters",
    "positions": "Similarity of position embeddings, one tile per position",
}
"""Name of a picture of ``vitrail explain`` -> its caption."""

KINDS = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of the page.

    Attributes:
        source: data URI with the picture.
        caption: text below the picture.
    """

    source: str
    caption: str


def read_explanation(run: Run) -> list[Picture]:
    """Pictures of ``vitrail explain``; empty without them."""
    return _pictures(run.explanation, EXPLAINED)


@dataclass(frozen=True, kw_only=True)
class RobustnessSection:
    """The robustness section.

    Attributes:
        values: the contents of ``robustness.json``.
        rows: (group, top-1, consistency) of every group.
        pictures: curves of every group.
    """

    values: Mapping[str, Any]
    rows: Sequence[tuple[str, float, float]]
    pictures: Sequence[Picture]


def read_robustness_section(run: Run) -> RobustnessSection | None:
    """The section from ``robustness.json`` and its curves; None without the file.

    Raises:
        VitrailError: the file is not a robustness file.
    """
    if not run.robustness.exists():
        return None
    values = read_robustness(run)
    captions = {f"robustness-{group}": f"Top-1 and consistency: {group}" for group in GROUPS}
    rows = [(group, one["top1"], one["consistency"]) for group, one in values["summary"].items()]
    return RobustnessSection(values=values, rows=rows, pictures=_pictures(run.figures, captions))


def _pictures(folder: Path, captions: Mapping[str, str]) -> list[Picture]:
    found = []
    for name, caption in captions.items():
        path = next((p for suffix in KINDS if (p := folder / f"{name}{suffix}").is_file()), None)
        if path is not None:
            data = base64.b64encode(read_bytes(path)).decode("ascii")
            found.append(Picture(source=f"data:{KINDS[path.suffix]};base64,{data}", caption=caption))
    return found
