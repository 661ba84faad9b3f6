"""The same image twice: equal files, equal pixels, or all but the same; across parts, or with two labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitrail.data import LabelledImage, Record
from vitrail.data.check.near_copies import NearCopy
from vitrail.soundness.reading import PART_ORDER, DataUnderCheck
from vitrail.soundness.soundness import Example, Finding, amount


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Two images that show the same; ``second`` is in the same part or a later one.

    Attributes:
        how: "equal files", "equal pixels", or how much they are alike.
        exact: whether their pixels are equal.
    """

    first: Record
    second: Record
    how: str
    exact: bool

    @property
    def files(self) -> tuple[str, str]:
        """The later one, and what it is a copy of."""
        return self.second.files[0], self.first.files[0]


def find_same_images(data: DataUnderCheck, zooms: Sequence[NearCopy] = ()) -> list[Finding]:
    """Findings on copies, each pair in the most telling one.

    Args:
        data: the data.
        zooms: pairs of images of which one shows a part of the other, by their places in ``data.images``.
    """
    images = list(data.images.values())
    zoomed = [_pair(images[one.first], images[one.second], _how(one, "zoomed"), exact=False) for one in zooms]
    copies = [*_equal(data), *_near(data), *zoomed]
    classes, undivided = data.splits.classes, any(not record.part for record in images)

    def shown(copy: Copy) -> str:
        places = [
            " ".join(filter(None, (record.part, label_of(record, classes)))) for record in (copy.second, copy.first)
        ]
        return f"{copy.how}: {' / '.join(places)}" if any(places) else copy.how

    two_labels = [copy for copy in copies if _annotated_otherwise(copy)]
    rest = [copy for copy in copies if not _annotated_otherwise(copy)]
    across = [copy for copy in copies if copy.first.part != copy.second.part]
    within = [copy for copy in rest if copy.first.part == copy.second.part]
    groups = [
        ("two-labels", [copy for copy in two_labels if copy.exact]),
        ("copies-across-parts", [copy for copy in across if copy.exact]),
        ("near-copies-across-parts", [copy for copy in across if not copy.exact]),
        ("near-copies-two-labels", [copy for copy in two_labels if not copy.exact]),
        ("copies", [copy for copy in within if copy.exact]),
        ("near-copies", [copy for copy in within if not copy.exact]),
    ]
    return [_finding(name, found, shown, undivided=undivided) for name, found in groups if found]


TEXTS = {
    "two-labels": (
        (
            "image shows the same as another one and has another annotation",
            "images show the same as another one and have another annotation",
        ),
        "Decide which is right, and delete the other; a training refuses them, or leaves out both.",
    ),
    "copies-across-parts": (
        ("image is in more than one part of the data", "images are in more than one part of the data"),
        "Scores on them say nothing of new images; delete them from the later part.",
    ),
    "near-copies-across-parts": (
        ("image is all but the same as one in another part", "images are all but the same as one in another part"),
        "Scores on them say little of new images; delete them from the later part, or keep whole series in one part.",
    ),
    "near-copies-two-labels": (
        (
            "image is all but the same as one with another label",
            "images are all but the same as one with another label",
        ),
        "One of the two labels is probably wrong.",
    ),
    "copies": (
        ("image is in the data more than once", "images are in the data more than once"),
        "They count several times; delete the copies.",
    ),
    "near-copies": (
        ("image is all but the same as another one", "images are all but the same as another one"),
        "They add little; keep each with its likeness in one part.",
    ),
}
"""Finding -> what is said of one image and of several, and what mends it."""

UNDIVIDED = (
    " The data names no parts, so that a training draws its validation images at random: near copies land on both "
    "sides, and scores are too good. Divide the data yourself (train/, val/), series by series."
)


def _finding(name: str, copies: Sequence[Copy], shown: Callable[[Copy], str], *, undivided: bool) -> Finding:
    first: dict[str, Copy] = {}
    for copy in copies:
        first.setdefault(copy.files[0], copy)
    what, remedy = TEXTS[name]
    return Finding(
        name=name,
        serious=name in ("two-labels", "copies-across-parts", "near-copies-across-parts"),
        title=amount(len(first), *what),
        text=remedy + (UNDIVIDED if undivided and name == "near-copies" else ""),
        count=len(first),
        examples=tuple(Example(files=copy.files, note=shown(copy)) for copy in first.values()),
    )


def label_of(record: Record, classes: Sequence[str]) -> str:
    """The class of an image; "" where images have no class."""
    return classes[record.label] if isinstance(record, LabelledImage) and classes else ""


def _annotated_otherwise(copy: Copy) -> bool:
    """For equal files any annotation counts; images that differ a little may well have other boxes."""
    if isinstance(copy.first, LabelledImage) and isinstance(copy.second, LabelledImage):
        return copy.first.label != copy.second.label
    if copy.how != "equal files" or any(record.files[0] != record.name for record in (copy.first, copy.second)):
        return False
    lines = {record.fingerprint_line("").removeprefix(record.name) for record in (copy.first, copy.second)}
    return len(lines) > 1


def _pair(first: Record, second: Record, how: str, *, exact: bool) -> Copy:
    if PART_ORDER.get(first.part, 0) > PART_ORDER.get(second.part, 0):
        first, second = second, first
    return Copy(first=first, second=second, how=how, exact=exact)


def _equal(data: DataUnderCheck) -> list[Copy]:
    """Each image with the first one of equal pixels, and with the first of them of each other part or label."""
    found = []
    for group in data.equals:
        firsts: dict[tuple[str, str], Record] = {}
        for record in (data.images[name] for name in group):
            for other in firsts.values():
                equal = record.digest == other.digest and bool(record.digest)
                found.append(_pair(other, record, "equal files" if equal else "equal pixels", exact=True))
            firsts.setdefault(_place(record), record)
    return found


def _place(record: Record) -> tuple[str, str]:
    """The part and the label."""
    return record.part, str(record.label) if isinstance(record, LabelledImage) else ""


def _how(near: NearCopy, *words: str) -> str:
    return ", ".join([f"{near.likeness:.1%} alike", *words, *(["mirrored"] if near.mirrored else [])])


def _near(data: DataUnderCheck) -> list[Copy]:
    """Pairs of images with other pixels that are all but the same, the most alike first."""
    firsts = [{_place(data.images[name]): data.images[name] for name in reversed(group)} for group in data.equals]
    found = []
    for near in data.near_copies:
        how = _how(near)
        for one in firsts[near.first].values():
            found += [_pair(one, other, how, exact=False) for other in firsts[near.second].values()]
    return found
