"""Pairs of keypoints that change places in a mirror image, as COCO's JSON or an option gives them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitrail.core.errors import DataError
from vitrail.data.formats.coco import is_numbers
from vitrail.data.mirror import mirror_order


def pairs_of_categories(
    root: Path, categories: Sequence[dict[str, Any]], names: Sequence[str]
) -> tuple[tuple[int, int], ...]:
    """Pairs of keypoints that change places in a mirror image, where the categories give them.

    These are ``flip_idx`` (for each keypoint the index of its counterpart, from 0, as in YOLO's data.yaml), or pairs of
    names or indices, from 0, under ``flip_pairs`` or ``keypoint_flip_map``.

    Raises:
        DataError: pairs that contradict each other, or that name unknown keypoints.
    """
    given = [
        (key, category[key])
        for category in categories
        if category.get("keypoints")
        for key in ("flip_idx", "flip_pairs", "keypoint_flip_map")
        if category.get(key)
    ]
    found = [_pairs(root, key, value, list(names)) for key, value in given]
    if len({frozenset(map(frozenset, pairs)) for pairs in found}) > 1:
        keys = " and ".join(dict.fromkeys(key for key, _ in given))
        raise DataError(f"{root} gives different pairs of keypoints ({keys}); keep one of them")
    pairs = found[0] if found else ()
    sides = mirror_order(names)
    if pairs and sides and mirror_order(names, pairs) != sides:
        raise DataError(
            f"{root} gives pairs of keypoints ({given[0][0]}) that contradict the sides in the keypoints' names "
            f"(indices begin at 0); correct them, or give --mirror-pairs"
        )
    return pairs


def _pairs(root: Path, key: str, value: Any, names: list[str]) -> tuple[tuple[int, int], ...]:
    wanted = f"{root} has a wrong {key!r} in its categories"
    if key == "flip_idx":
        whole = is_numbers(value, len(names)) and all(isinstance(one, int) for one in value)
        if not whole or sorted(value) != list(range(len(names))):
            raise DataError(f"{wanted}: it is not the numbers 0 to {len(names) - 1}, one for each keypoint")
        if any(value[value[index]] != index for index in range(len(names))):
            raise DataError(f"{wanted}: a keypoint takes the place of one that does not take its place")
        return tuple((index, other) for index, other in enumerate(value) if index < other)
    index = {name: number for number, name in enumerate(names)} | {number: number for number in range(len(names))}
    pairs = value if isinstance(value, list) else []
    if not pairs or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise DataError(f"{wanted}: it is not a list of pairs")
    unknown = [end for pair in pairs for end in pair if not isinstance(end, str | int) or end not in index]
    if unknown:
        raise DataError(f"{wanted}: {unknown[0]!r} is no keypoint (names, or numbers from 0 to {len(names) - 1})")
    return _once_each(names, [(index[a], index[b]) for a, b in pairs], key)


def pairs_of_texts(names: Sequence[str], given: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of indices from texts of the form ``left_eye=right_eye``.

    Raises:
        DataError: a text that has no such form, a keypoint that is unknown, or one that occurs twice.
    """
    found: list[tuple[int, int]] = []
    for text in given:
        cuts = [(text[:at], text[at + 1 :]) for at, sign in enumerate(text) if sign == "="]
        ends = [(a.strip(), b.strip()) for a, b in cuts]
        known = [(a, b) for a, b in ends if a in names and b in names and a != b]
        if len(known) != 1:
            raise DataError(
                f"mirror_pairs has '{text}', which is not NAME=NAME of two keypoints; they are {', '.join(names)}"
            )
        found.append((names.index(known[0][0]), names.index(known[0][1])))
    return _once_each(names, found, "mirror_pairs")


def _once_each(names: Sequence[str], pairs: Sequence[tuple[int, int]], source: str) -> tuple[tuple[int, int], ...]:
    """The pairs, each keypoint in one at most.

    Raises:
        DataError: a keypoint occurs twice; ``source`` says where.
    """
    every = [index for pair in pairs for index in pair]
    twice = next((index for index in every if every.count(index) > 1), None)
    if twice is not None:
        raise DataError(f"{source} has keypoint '{names[twice]}' twice; each changes places with one other")
    return tuple(pairs)
