"""Numbers of images: classes that are rare, and parts that are too small to measure with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vitrail.core.paths import typed_path
from vitrail.data import DataSplits, LabelledImage, MultiLabelImage
from vitrail.data.records import BoxedImage
from vitrail.soundness.soundness import Example, Finding, Understood, amount

FEW = 10
"""Training images (or objects) of a class below which it is hardly learnt."""

UNEVEN = 10.0
"""Largest over smallest class from which the smallest ones are named."""

FEW_HELD_OUT = 100
"""Images of a part below which a score is not known to ten points."""

CUT = 0.15
"""Share of the training images that becomes the validation part where the data has none."""

NAMED = 5

TITLES = {"train": "training", "val": "validation", "test": "test"}


def find_imbalance(understood: Understood) -> list[Finding]:
    """Rare classes, uneven classes, and classes that a held-out part lacks."""
    learnt = {name: own.get("train", 0) + own.get("", 0) for name, own in understood.classes.items()}
    if not any(learnt.values()):
        return []
    found = _rare(learnt, understood.counted)
    if text := _uneven(learnt, understood.counted):
        found.append(Finding(name="uneven-classes", serious=False, title=text, text=UNEVEN_REMEDY, count=1))
    return found + [one for part in ("val", "test") if part in understood.parts for one in _missing(understood, part)]


UNEVEN_REMEDY = (
    "A model that prefers the large classes gets a good top-1; look at the recall of each class, and collect more of "
    "the small ones."
)


def _missing(understood: Understood, part: str) -> list[Finding]:
    lacking = [name for name, own in understood.classes.items() if not own.get(part)]
    if not lacking:
        return []
    classes = amount(len(lacking), "class has", "classes have")
    return [
        Finding(
            name=f"classes-missing-in-{part}",
            serious=False,
            title=f"{classes} no {understood.counted} in the {TITLES[part]} part",
            text="Nothing is measured of these classes; move some of their images to that part.",
            count=len(lacking),
            examples=tuple(Example(files=(), note=name) for name in lacking),
        )
    ]


def _rare(learnt: Mapping[str, int], counted: str) -> list[Finding]:
    rare = sorted((count, name) for name, count in learnt.items() if count < FEW)
    if not rare:
        return []
    return [
        Finding(
            name="rare-classes",
            serious=False,
            title=f"{amount(len(rare), 'class has', 'classes have')} fewer than {FEW} {counted} to learn from",
            text=f"The rarest: {_listed(rare)}. Collect more of them, join them with others, or leave them out.",
            count=len(rare),
            examples=tuple(
                Example(files=(), note=f"{name}: {amount(count, counted.removesuffix('s'), counted)}")
                for count, name in rare
            ),
        )
    ]


def _uneven(learnt: Mapping[str, int], counted: str) -> str:
    """A sentence if the largest class is many times the smallest one; "" if it is not."""
    present = sorted((count, name) for name, count in learnt.items() if count)
    if len(present) < 2 or present[-1][0] < UNEVEN * present[0][0]:
        return ""
    most, largest = present[-1]
    return (
        f"Classes are uneven: '{largest}' has {most} {counted}, {most / present[0][0]:.0f} times as many as the "
        f"smallest ({_listed(present)})"
    )


def _listed(counts: Sequence[tuple[int, str]]) -> str:
    more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
    return ", ".join(f"'{name}' {count}" for count, name in counts[:NAMED]) + more


def find_small_parts(understood: Understood) -> list[Finding]:
    """Held-out parts on which a score says little, also the validation part that a training would cut."""
    parts = understood.parts
    sizes = {part: count for part, count in parts.items() if part in ("val", "test")}
    if "val" not in parts and (learnt := parts.get("train", 0) + parts.get("", 0)):
        sizes["val"] = max(round(CUT * learnt), 1)
    return [
        Finding(
            name=f"few-images-in-{part}",
            serious=False,
            title=f"The {TITLES[part]} part{'' if part in parts else CUT_PART} has {amount(count, 'image', 'images')}",
            text=f"A share of right answers is known to ±{margin(count):.0f} points on so few. Measure on more, or "
            f"repeat with several seeds and splits.",
            count=count,
        )
        for part, count in sorted(sizes.items())
        if count < FEW_HELD_OUT
    ]


CUT_PART = " (cut from the training images)"


def margin(count: int) -> float:
    """Points by which an accuracy on so many images may be off: half of the 95 % interval at 80 %, no more than
    50."""
    return min(100 * 1.96 * math.sqrt(0.8 * 0.2 / count), 50.0)


def describe_balance(data: DataSplits[Any]) -> list[str]:
    """A sentence for the beginning of a training, if classes are uneven or have very few images; else none."""
    if not data.classes:
        return []
    learnt: Counter[str] = Counter()
    for record in data.train.records:
        labels = record.labels if isinstance(record, BoxedImage | MultiLabelImage) else ()
        for label in (record.label,) if isinstance(record, LabelledImage) else labels:
            learnt[data.classes[label]] += 1
    counted = "objects" if isinstance(data.train.records[0], BoxedImage) else "images"
    rare = sorted((count, name) for name, count in learnt.items() if count < FEW)
    more = f"vitrail check {typed_path(data.source)} shows more of the data"
    if text := _uneven(learnt, counted):
        return [f"{text}; look at the recall of each class; {more}"]
    few = f"{amount(len(rare), 'class has', 'classes have')} fewer than {FEW} training {counted}: {_listed(rare)}"
    return [f"{few}; {more}"] if rare else []
