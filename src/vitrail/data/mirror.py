"""Which labels change places in a mirror image, by the pairs that the data gives or by the sides in their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

SIDES = (
    (("left", "l", "lt", "lft"), ("right", "r", "rt", "rgt")),
    (("links", "linke", "linker", "linkes"), ("rechts", "rechte", "rechter", "rechtes")),
    (("gauche",), ("droite", "droit")),
    (("izquierda", "izquierdo", "izq"), ("derecha", "derecho")),
    (("esquerda", "esquerdo"), ("direita", "direito")),
    (("sinistra", "sinistro", "sx"), ("destra", "destro", "dx")),
    (("左",), ("右",)),
)
"""Words for left and for right, in lower case."""

CANONICAL = {word: side for row in SIDES for side, words in zip(("left", "right"), row, strict=True) for word in words}

SHORT = 3
"""Latin words up to this length name a class's side only beside their counterpart: a class may be called L."""

ATTACHED = (("^left", "right"), ("^right", "left"), ("left$", "right"), ("right$", "left"))
ATTACHED_LETTERS = (("^l(?=.)", "r"), ("^r(?=.)", "l"), ("(?<=.)l$", "r"), ("(?<=.)r$", "l"))
"""Sides that are written together with another word (leftpaw, lhip, RF for right front) -> their counterparts."""

SWAPPED = {"left": "right", "right": "left"}

Words = tuple[str, ...]


def mirror_order(names: Sequence[str], pairs: Sequence[tuple[int, int]] = ()) -> tuple[int, ...]:
    """For each keypoint, the index of the one that takes its place in a mirror image; empty where that is unknown.

    Sides are read from whole words in any case, as in ``left_eye``, ``L-Eye`` or ``eyeRight``, and from words that
    differ by a side at one end alone, as in ``leftpaw`` or ``lhip``. Names without a side stay. The order is unknown if
    a side has no counterpart, if a name has several, or if no name of two or more has a side.

    Args:
        names: of all keypoints.
        pairs: indices that change places; the names are not looked at if there are any.
    """
    order = list(range(len(names)))
    if pairs:
        for first, second in pairs:
            order[first], order[second] = second, first
        return tuple(order)
    words = [_canonical(_words(name)) for name in names]
    for number, own in enumerate(words):
        wanted = _counterparts(own, ATTACHED + ATTACHED_LETTERS)
        found = [other for other, theirs in enumerate(words) if theirs in wanted]
        if len(found) > 1 or (not found and re.search("left|right", " ".join(own))):
            return ()
        order[number] = found[0] if found else number
    paired = any(other != number for number, other in enumerate(order))
    mutual = all(order[other] == number for number, other in enumerate(order))
    return tuple(order) if mutual and (paired or len(names) == 1) else ()


def classes_with_sides(names: Sequence[str]) -> tuple[str, ...]:
    """The classes that a mirror image may turn into others, as ``turn left``, or ``lung_R`` beside ``lung_L``."""
    words = {name: _words(name) for name in names}
    known = {_canonical(own) for own in words.values()}
    return tuple(
        name
        for name, own in words.items()
        if any(word in CANONICAL and (len(word) > SHORT or word in "左右") for word in own)
        or known & _counterparts(_canonical(own), ATTACHED)
    )


def describe_mirror(names: Sequence[str], order: Sequence[int]) -> str:
    """A sentence on what a mirror image does to keypoints."""
    if not order:
        return (
            f"Images are not mirrored: it is not known which of the keypoints {_few(names)} change places; "
            f"give them: --mirror-pairs LEFT=RIGHT LEFT=RIGHT"
        )
    pairs = [f"{names[i]} = {names[other]}" for i, other in enumerate(order) if i < other]
    stay = [names[i] for i, other in enumerate(order) if i == other]
    text = f"Pairs of keypoints that change places in mirror images: {len(pairs)} ({_few(pairs)})" if pairs else ""
    return f"{text}; keypoints that stay: {len(stay)} ({_few(stay)})" if pairs and stay else text


def describe_sides(classes: Sequence[str]) -> str:
    """A sentence on why images of such classes are not mirrored; empty if there are none."""
    if not classes:
        return ""
    return f"Images are mirrored only with --hflip: a mirror image may belong to another class ({_few(classes)})"


def _words(name: str) -> Words:
    """Words and numbers in lower case; camel case and the characters of 左 and 右 are words of their own."""
    runs = re.findall(r"[左右]|[^\W\d_左右]+|\d+", name)
    humps = r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
    return tuple(word.casefold() for run in runs for word in re.split(humps, run))


def _canonical(words: Words) -> Words:
    """The same with "left" and "right" for every word that names a side."""
    return tuple(CANONICAL.get(word, word) for word in words)


def _counterparts(words: Words, attached: Sequence[tuple[str, str]]) -> set[Words]:
    """The names that may be the other side's: one if a word names the side, else one for each ``attached`` side."""
    if any(word in SWAPPED for word in words):
        return {tuple(SWAPPED.get(word, word) for word in words)}
    return {
        (*words[:at], re.sub(pattern, other, word), *words[at + 1 :])
        for at, word in enumerate(words)
        for pattern, other in attached
        if re.search(pattern, word)
    }


def _few(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
