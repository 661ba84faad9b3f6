"""How numbers are written on pages and in tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MISSING = "–"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return MISSING if value is None else f"{100 * value:.{digits}f} %"


def score(value: float | None, about: Mapping[str, Any]) -> str:
    """A score as a percentage or a number; ``about`` is its description in ``evaluation.json``."""
    return percent(value) if about["percent"] else number(value)


def difference(value: float | None, about: Mapping[str, Any]) -> str:
    """A difference of two scores, with its sign."""
    if value is None:
        return MISSING
    return points(value) if about["percent"] else f"{value:+.4g}".replace("-", "\u2212")


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    text = f"{100 * value:+.1f}".replace("-", "\u2212")
    return "±0.0 points" if text in ("+0.0", "\u22120.0") else f"{text} points"


def number(value: float | None) -> str:
    """Three significant digits, a whole number from 100, an exponent below 0.001."""
    if value is None:
        return MISSING
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:#.3g}" if abs(value) >= 1e-3 else f"{value:.1e}"


def megabytes(size_bytes: int | None) -> str:
    """A size in MB (10^6 bytes)."""
    return MISSING if size_bytes is None else f"{number(size_bytes / 1e6)} MB"
