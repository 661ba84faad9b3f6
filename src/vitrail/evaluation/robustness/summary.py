"""The table of one run's robustness, or of several runs' side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from vitrail.evaluation.robustness.config import GROUPS

Robustness = Mapping[str, Any]
"""Contents of a ``robustness.json``."""


def robustness_table(
    runs: Mapping[str, Sequence[Robustness]], what: Literal["top1", "consistency"]
) -> tuple[list[str], list[tuple[str, list[float | None]]]]:
    """Headings, and a name with its shares (0 to 1) a row, means over the seeds and over all strengths of a group.

    Top-1 starts with that of the untouched pictures; consistency ends with that of diagonal shifts.
    """
    groups = [g for g in GROUPS if any(g in one["summary"] for several in runs.values() for one in several)]
    top1 = what == "top1"
    head = ["run", *(["untouched"] if top1 else []), *groups, *([] if top1 else ["diagonal pairs"])]
    rows = []
    for name, several in runs.items():
        shares = [_mean([one["summary"].get(group, {}).get(what) for one in several]) for group in groups]
        if top1:
            shares.insert(0, _mean([one["clean_top1"] for one in several]))
        else:
            shares.append(_mean([one.get("diagonal_consistency") for one in several]))
        rows.append((name, shares))
    return head, rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
