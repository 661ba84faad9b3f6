"""The slider of a least confidence: its numbers for a browser, and what is read where no script runs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.core.files import json_text, read_text
from vitrail.report.written import percent
from vitrail.tasks.findings.findings import STEPS
from vitrail.tasks.findings.plain_words import grouped

SCRIPT = read_text(Path(__file__).parent / "templates" / "threshold.js")
"""The only script of a page; it reads the numbers that stand beside it, and nothing else."""


def script_source() -> str:
    """The source of :data:`SCRIPT` in a page's security policy, so that no other script runs."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'"


@dataclass(frozen=True, kw_only=True)
class Slider:
    """A slider with what it shows.

    Attributes:
        name: a word, unique on the page.
        title: what it decides.
        last: number of the last step.
        start: number of the step that is shown first.
        start_text: its least confidence.
        rows: (heading, text at the first step).
        numbers: JSON for the script: for each row the counts at all steps, and those they are shares of.
    """

    name: str
    title: str
    last: int
    start: int
    start_text: str
    rows: Sequence[tuple[str, str]]
    numbers: str


def read_slider(threshold: Mapping[str, Any]) -> Slider:
    """The slider of an entry of ``thresholds`` in ``evaluation.json``."""
    start = min(range(len(STEPS)), key=lambda step: abs(STEPS[step] - threshold["start"]))
    counts = threshold["counts"]
    rows = [(heading, counts[name], counts.get(of)) for heading, name, of in threshold["shown"]]
    return Slider(
        name=threshold["name"],
        title=threshold["title"],
        last=len(STEPS) - 1,
        start=start,
        start_text=percent(STEPS[start]),
        rows=[(heading, counted(values[start], of[start] if of else None)) for heading, values, of in rows],
        numbers=json_text([_compact(values, of) for _, values, of in rows]).replace(" ", ""),
    )


def _compact(values: Sequence[int], of: Sequence[int] | None) -> dict[str, Any]:
    """Counts at all steps; one number stands for equal ones."""
    if of is None:
        return {"n": values}
    return {"n": values, "of": of[0] if len(set(of)) == 1 else of}


def counted(number: int, of: int | None) -> str:
    """A number, with its share of another one; the script writes the same."""
    if of is None:
        return grouped(number)
    return f"{grouped(number)} of {grouped(of)}" + (f" ({percent(number / of)})" if of else "")
