"""Pictures that other verbs left in a run, as the page embeds them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.evaluation import GROUPS
from vitrail.runs.robustness import read_robustness
from vitrail.runs.run import Run

EXPLAINED = {
    "attention": "What the model takes from each image; the scale is each picture's own",
    "distances": "How far away every head looks",
    "collapse": "How alike the tokens of a level are, and how many directions they use",
    "receptive_fields": "Which pixels a level's central token depends on",
    "filters": "Principal components of the filters that read the pixels",
    "positions": "Similarity of position embeddings, a tile a position",
}
"""Name of a picture of ``vitrail explain`` -> what it shows."""

KINDS = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of the page.

    Attributes:
        source: the picture itself, as a data URI.
        caption: what it shows.
    """

    source: str
    caption: str


def read_explanation(run: Run) -> list[Picture]:
    """What ``vitrail explain`` drew; empty where it has not been asked."""
    return _pictures(run.explanation, EXPLAINED)


@dataclass(frozen=True, kw_only=True)
class RobustnessSection:
    """The robustness section.

    Attributes:
        values: the contents of ``robustness.json``.
        rows: (group, top-1, consistency).
        pictures: curves.
    """

    values: Mapping[str, Any]
    rows: Sequence[tuple[str, float, float]]
    pictures: Sequence[Picture]


def read_robustness_section(run: Run) -> RobustnessSection | None:
    """From ``robustness.json`` and its curves; None where it is missing.

    Raises:
        VitrailError: the file is no robustness file.
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
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            found.append(Picture(source=f"data:{KINDS[path.suffix]};base64,{data}", caption=caption))
    return found
