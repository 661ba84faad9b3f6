"""The same image twice: in several parts, or with annotations that contradict each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vitrail.data.check.problems import MAX_SHOWN
from vitrail.data.records import LabelledImage, Record

Digests = Mapping[str, str]
"""Image -> SHA-256 of the file."""


def originals(records: Sequence[Record], digests: Digests) -> list[int]:
    """For each record the index of the first image with equal contents; objects of one image are not compared."""
    first: dict[str, int] = {}
    found = []
    for index, record in enumerate(records):
        digest = digests.get(record.name) if record.files[0] == record.name else None
        found.append(first.setdefault(digest, index) if digest else index)
    return found


def contradictions(records: Iterable[Record], digests: Digests) -> list[list[Record]]:
    """Images with equal contents and different annotations, each group in the order of the records. Objects of one
    image are no images, and are left out."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.files[0] == record.name and (digest := digests.get(record.name)):
            groups.setdefault(digest, []).append(record)
    return [group for group in groups.values() if len({_annotation(record) for record in group}) > 1]


def _annotation(record: Record) -> str:
    return record.fingerprint_line("").removeprefix(record.name)


def contradicting_classes(records: Sequence[LabelledImage], classes: Sequence[str], digests: Digests) -> dict[str, str]:
    """Image -> why its class is in doubt, for images with equal contents and different classes."""
    labels = {record.name: classes[record.label] for record in records}
    reasons = {}
    for group in contradictions(records, digests):
        for record in group:
            other = next(one for one in group if labels[one.name] != labels[record.name])
            own, theirs = labels[record.name], labels[other.name]
            reasons[record.name] = f"is the same image as {other.name}, but of class '{own}' and not '{theirs}'"
    return reasons


def describe_copies(parts: Mapping[str, Sequence[Record]], digests: Digests) -> list[str]:
    """Sentences on images that are in several parts, or that have several annotations."""
    first: dict[str, tuple[str, str]] = {}
    shared: dict[str, str] = {}
    for part, records in parts.items():
        for name in dict.fromkeys(record.files[0] for record in records):
            if digest := digests.get(name):
                other, copy = first.setdefault(digest, (part, name))
                if other != part:
                    shared[name] = copy
    found = []
    if shared:
        found.append(
            f"{len(shared)} images are in more than one part of the data ({_pairs(shared)}), so that scores on them "
            f"say nothing of new images; delete the copies, or pass --strict to refuse such data"
        )
    every = [record for records in parts.values() for record in records]
    doubtful = {group[1].name: group[0].name for group in contradictions(every, digests)}
    if doubtful:
        found.append(
            f"{len(doubtful)} images occur twice with different annotations ({_pairs(doubtful)}); keep one of each"
        )
    return found


def _pairs(copies: Mapping[str, str]) -> str:
    shown = [f"{name} = {other}" for name, other in list(copies.items())[:MAX_SHOWN]]
    return ", ".join(shown) + (", ..." if len(copies) > MAX_SHOWN else "")
