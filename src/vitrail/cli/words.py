"""Values and options as people type them, and the first heading of every help page."""

from __future__ import annotations

from typing import Any

from cyclopts import Group

MAIN = Group("Options", sort_key=1)
"""What most people need, and the verb's own options."""


def option_name(field: str) -> str:
    """``min_runs`` as ``--min-runs``."""
    return f"--{field.replace('_', '-')}"


def typed_words(value: Any) -> str:
    """A value as the words that would be typed for it."""
    if isinstance(value, tuple | list):
        return " ".join(map(typed_words, value))
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def default_words(value: Any) -> str | None:
    """A default for the help; None if none can be typed, since the option's own line then says what happens."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return " ".join(default_words(item) or "" for item in value) or None
    return None if value is None or value is False or value in ("", {}) else typed_words(value)
