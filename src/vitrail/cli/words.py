"""Values and options as people type them, and the first heading of every help page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import Group, Token

from vitrail.core.config import choices

MAIN = Group("Options", sort_key=1)
"""What most people need, and the verb's own options."""


STANDARD_INPUT = "-"
"""Word that stands for a list of paths on standard input."""

OLD_OPTIONS = {
    "--num-images": ("--calibration", ("quantize", "run", "demo")),
    "--weight-bits": ("--bits", ("quantize", "run", "demo")),
    "--to": ("--out", ("pareto",)),
}
"""Earlier name of an option -> its name in every verb, and the verbs that had the earlier one."""


def renamed(verb: str, word: str) -> str | None:
    """A word with the present name of an option that was typed by an earlier one; None for all other words."""
    option, equals, value = word.partition("=")
    name, verbs = OLD_OPTIONS.get(option.replace("_", "-"), ("", ()))
    return name + equals + value if verb in verbs else None


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


def whole_number(kind: type[int], tokens: Sequence[Token]) -> int:
    """The command-line library on its own would round 1.5 to 2 and say nothing."""
    return _as_int(kind, tokens[0].value)


def _as_int(kind: Callable[[str], int], word: str) -> int:
    try:
        return kind(word)
    except ValueError:
        raise ValueError(f'"{word}" is not a whole number') from None


def split_words(kind: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """``a,b`` and ``a b`` alike."""
    words = tuple(word for token in tokens for word in token.value.split(",") if word)
    known = choices(kind)
    if unknown := [word for word in words if known and word not in known]:
        raise ValueError(f'"{unknown[0]}" is not one of {", ".join(known)}')
    return words


def split_numbers(kind: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    """``1,2`` and ``1 2`` alike."""
    return tuple(_as_int(int, word) for word in split_words(kind, tokens))


CONVERTERS = {"whole_number": whole_number, "split_words": split_words, "split_numbers": split_numbers}
"""Name -> function that reads an option's words."""
