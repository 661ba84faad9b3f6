"""Shares in words that need no statistics."""

from __future__ import annotations

HUNDRED = 100


def out_of(right: float, of: float) -> str:
    """A share for people: "29 of 30", and from 100 on "97 of 100".

    What is rounded never says all or none where it is not all or none: "more than 99 of 100", "fewer than 1 of 100".

    Args:
        right: how many, from 0 to ``of``.
        of: among how many; nothing is said of none.
    """
    if of <= HUNDRED:
        return f"{round(right)} of {round(of)}"
    if right >= of:
        return f"all {grouped(of)}"
    if right <= 0:
        return f"none of {grouped(of)}"
    share = HUNDRED * right / of
    if share > HUNDRED - 0.5:
        return f"more than {HUNDRED - 1} of {HUNDRED}"
    return f"fewer than 1 of {HUNDRED}" if share < 0.5 else f"{round(share)} of {HUNDRED}"


def of_hundred(low: float, high: float) -> str:
    """An interval of shares for people, e.g. "from 83 to 99 of 100"; it is rounded outwards."""
    least, most = int(HUNDRED * low + 1e-9), -int(-HUNDRED * high // 1)
    return f"from {max(least, 0)} to {min(most, HUNDRED)} of {HUNDRED}"


def grouped(count: float) -> str:
    """A whole number with its thousands apart, e.g. "1,200"."""
    return f"{round(count):,}"


def amount(count: int, one: str, many: str = "") -> str:
    """A number with its noun, e.g. "1 false alarm", "2 false alarms"."""
    return f"{grouped(count)} {one if count == 1 else many or one + 's'}"
