"""What a score says: which ones can differ at all, and what the simplest answer would reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TOP_K = {"top5": 5}
"""Score that counts an answer among the most probable -> number of them."""


def telling_scores(scores: Sequence[Mapping[str, Any]], num_classes: int) -> list[Mapping[str, Any]]:
    """The scores (``scores`` of ``evaluation.json``) that can be below 100 %: top-5 of five classes cannot."""
    return [score for score in scores if not 0 < num_classes <= TOP_K.get(score["name"], 0)]


def majority(report: Mapping[str, Any]) -> tuple[str, float] | None:
    """The most frequent class of a report, and the accuracy of always answering it; None without counts."""
    counted = [row for row in report.get("per_class", ()) if row.get("support")]
    if not counted or "top1" not in report:
        return None
    most = max(counted, key=lambda row: row["support"])
    return most["name"], most["support"] / sum(row["support"] for row in counted)


def share_text(share: float, digits: int = 1) -> str:
    """0.876 as ``87.6 %``."""
    return f"{100 * share:.{digits}f} %"
