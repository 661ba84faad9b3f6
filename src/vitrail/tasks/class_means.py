"""Scores in which each class counts as much as any other, from rows of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MACRO = {"macro_recall": "recall", "macro_f1": "f1"}
"""Score that is a mean over the classes that occur -> its entry of each class."""


def macro_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The scores of :data:`MACRO` from rows of classes with ``support`` (number of images); none without such rows."""
    occurring = [row for row in rows if row.get("support")]
    if not occurring or any(row.get(column) is None for row in occurring for column in MACRO.values()):
        return {}
    return {name: sum(row[column] for row in occurring) / len(occurring) for name, column in MACRO.items()}
