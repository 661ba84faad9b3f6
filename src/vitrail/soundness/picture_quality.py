"""Pictures that are unlike the rest of the set: blurred, dark, bright, empty, very long or very small."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from vitrail.data.check.appearance import Appearance
from vitrail.data.check.near_copies import FLAT
from vitrail.soundness.soundness import Example, Finding, amount

ENOUGH = 20
"""Images from which a set says what is usual in it."""

BLUR_FACTOR, BLUR_DEVIATIONS = 10.0, 3.5
"""A picture is blurred whose sharpness is below a tenth of the set's median, and is so unusual in the set."""

DARKEST, BRIGHTEST = 25.0, 245.0
"""Mean grey of a picture in which little can be seen, where the set is not like that."""

UNLIKE = 3.0
"""How many times darker, brighter, longer or smaller than the median."""

LONG = 4.0
SMALL = 32
"""Longer over shorter side, and pixels of the shorter side, from which a picture is looked at at all."""

Looks = Mapping[str, Appearance]


def find_odd_pictures(looks: Looks) -> list[Finding]:
    """One finding a kind, for those that occur."""
    if not looks:
        return []
    empty = {name: one for name, one in looks.items() if one.contrast < FLAT}
    others = {name: one for name, one in looks.items() if name not in empty}
    checks: list[tuple[str, str, str, list[tuple[float, str, str]]]] = [
        ("empty-pictures", "of one shade", "They show nothing; delete them.", _rows(empty, lambda one: one.contrast)),
        ("blurred", "much less sharp than the others", "Look whether they can be told at all.", _blurred(others)),
        ("dark", "much darker than the others", "Look whether anything can be seen.", _dark(others)),
        ("bright", "much brighter than the others", "Look whether anything can be seen.", _bright(others)),
        (
            "long-pictures",
            "much longer than the others",
            "A centre crop keeps little of them; cut them, or train with --crop-fraction 1.",
            _long(looks),
        ),
        ("small-pictures", "much smaller than the others", "They are enlarged, and blurred by that.", _small(looks)),
    ]
    return [
        Finding(
            name=name,
            serious=False,
            title=amount(len(rows), f"picture is {what}", f"pictures are {what}"),
            text=text,
            count=len(rows),
            examples=tuple(Example(files=(file,), note=note) for _, file, note in sorted(rows)),
        )
        for name, what, text, rows in checks
        if rows
    ]


def _rows(looks: Looks, key: Callable[[Appearance], float]) -> list[tuple[float, str, str]]:
    return [(key(one), name, f"contrast {one.contrast:.1f}") for name, one in looks.items()]


def sharpness_of(look: Appearance) -> float:
    """Variance of the Laplacian over that of the grey: a picture in fog may be sharp."""
    return look.sharpness / max(look.contrast, FLAT) ** 2


def _blurred(looks: Looks) -> list[tuple[float, str, str]]:
    if len(looks) < ENOUGH:
        return []
    values = np.log([sharpness_of(one) + 1e-6 for one in looks.values()])
    median = np.median(values)
    deviation = max(1.4826 * float(np.median(np.abs(values - median))), 0.1)
    limit = median - max(np.log(BLUR_FACTOR), BLUR_DEVIATIONS * deviation)
    return [
        (float(value), name, f"{np.exp(median - value):.0f} times less sharp than usual")
        for name, value in zip(looks, values, strict=True)
        if value < limit
    ]


def _dark(looks: Looks) -> list[tuple[float, str, str]]:
    usual = float(np.median([one.brightness for one in looks.values()])) if looks else 0.0
    limit = min(DARKEST, usual / UNLIKE)
    return [
        (one.brightness, name, f"brightness {one.brightness:.0f} of 255, usual {usual:.0f}")
        for name, one in looks.items()
        if one.brightness < limit
    ]


def _bright(looks: Looks) -> list[tuple[float, str, str]]:
    usual = float(np.median([one.brightness for one in looks.values()])) if looks else 255.0
    limit = max(BRIGHTEST, 255 - (255 - usual) / UNLIKE)
    return [
        (-one.brightness, name, f"brightness {one.brightness:.0f} of 255, usual {usual:.0f}")
        for name, one in looks.items()
        if one.brightness > limit
    ]


def _long(looks: Looks) -> list[tuple[float, str, str]]:
    usual = float(np.median([one.aspect for one in looks.values()]))
    return [
        (-one.aspect, name, f"{one.width}x{one.height}")
        for name, one in looks.items()
        if one.aspect > max(LONG, UNLIKE * usual)
    ]


def _small(looks: Looks) -> list[tuple[float, str, str]]:
    usual = float(np.median([min(one.width, one.height) for one in looks.values()]))
    return [
        (min(one.width, one.height), name, f"{one.width}x{one.height}")
        for name, one in looks.items()
        if min(one.width, one.height) < min(SMALL, usual / UNLIKE)
    ]
