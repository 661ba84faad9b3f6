"""Findings as plain values for ``evaluation.json``, with intervals."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import Any

import torch

from vitrail.core.files import finite_only
from vitrail.evaluation.statistics import CONFIDENCE, ratio_interval, wilson
from vitrail.tasks.findings.findings import Findings

NUM_DRAWS = 400
"""Number of draws of images, with replacement, for the intervals of scores."""

SHOWN_DIGITS = 6


def describe_findings(findings: Findings) -> dict[str, Any]:
    """All that a task's findings say.

    Returns:
        ``right`` (count, of, low, high), ``intervals`` (score -> low and high), ``trivial``, ``numbers``, ``curves``,
        ``thresholds``, ``tables``, ``matrices``, as the schema of ``evaluation.json`` has them.
    """
    counts, totals = findings.shares()
    intervals = _score_intervals(findings)
    low, high = intervals.pop("right") if "right" in intervals else _right_interval(findings)
    right = {"count": float(counts.sum()), "of": float(totals.sum()), "low": low, "high": high}
    if findings.right_is and right["of"]:
        intervals[findings.right_is] = (right["low"], right["high"])
    values = {
        "right": right if isfinite(sum(right.values())) else None,
        "intervals": {
            name: [round(one, SHOWN_DIGITS) for one in pair] for name, pair in intervals.items() if isfinite(sum(pair))
        },
        "trivial": asdict(findings.trivial()),
        "numbers": {name: value for name, value in findings.numbers().items() if isfinite(value)},
        "curves": [_finite_lines(asdict(one)) for one in findings.curves()],
        "thresholds": [asdict(one) for one in findings.thresholds()],
        "tables": [finite_only(asdict(one)) for one in findings.tables()],
        "matrices": [asdict(one) for one in findings.matrices()],
    }
    return {name: value for name, value in values.items() if value is not None}


def _finite_lines(curve: dict[str, Any]) -> dict[str, Any]:
    """A curve without the points that a broken model makes of numbers that are none."""
    lines = {label: [(x, y) for x, y in points if isfinite(x + y)] for label, points in curve["lines"].items()}
    return curve | {"lines": lines}


def _right_interval(findings: Findings) -> tuple[float, float]:
    """Of images that are right or wrong as a whole, Wilson's; else images are drawn, with what is in them."""
    counts, totals = (one.double().numpy() for one in findings.shares())
    if not totals.sum():
        return 0.0, 1.0
    if (totals == 1).all() or (counts == 0).all() or (counts == totals).all():
        share = counts.sum() / totals.sum()
        found = wilson(share * len(totals), len(totals))  # draws of equal images would all be equal
    else:
        found = ratio_interval(counts, totals)
    return found.low, found.high


def _score_intervals(findings: Findings) -> dict[str, tuple[float, float]]:
    count = len(findings.shares()[0])
    if count < 2 or not findings.rescored(torch.arange(count)):
        return {}
    draw = torch.Generator().manual_seed(0)
    draws = [findings.rescored(torch.randint(count, (count,), generator=draw)) for _ in range(NUM_DRAWS)]
    ends = torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], dtype=torch.float64)
    intervals = {}
    for name in draws[0]:
        low, high = torch.tensor([one[name] for one in draws], dtype=torch.float64).quantile(ends).tolist()
        intervals[name] = (low, high)
    return intervals
