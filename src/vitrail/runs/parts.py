"""``images.csv``: the images that a run was trained, validated and tested with; the same parts of data that changed.

One row an image: its part, its name in the data folder, and hashes of the file and of what is known of it.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from vitrail.core.errors import DataError, RunError
from vitrail.core.files import atomic_path, open_regular
from vitrail.data import DataSplits, Record

PARTS = ("train", "val", "test")

DIGITS = 16
"""Hexadecimal digits of a hash that are kept."""

MAX_SHOWN = 3
"""Names that a sentence gives."""


@dataclass(frozen=True, kw_only=True)
class KnownImage:
    """A row of the file.

    Attributes:
        part: "train", "val" or "test".
        name: path inside the data folder, or an identifier.
        image: hash of the image file; empty if it is not known.
        target: hash of the label or the annotation, with the classes in the order of the run.
    """

    part: str
    name: str
    image: str
    target: str


COLUMNS = tuple(field.name for field in fields(KnownImage))


def known_images(data: DataSplits[Any]) -> list[KnownImage]:
    """What the file keeps of a data set."""
    return [
        KnownImage(part=part, name=record.name, image=record.digest[:DIGITS], target=_target_hash(record))
        for part, record in _records(data)
    ]


def write_parts(path: Path, images: Sequence[KnownImage]) -> None:
    """Write the file, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(map(astuple, images))


def read_parts(path: Path) -> list[KnownImage]:
    """Read the file; columns of later versions are passed over.

    Raises:
        RunError: the file cannot be read, or a row is wrong; the message names the line.
    """
    remedy = "restore the file; without it, nothing tells which images the run was trained with"
    try:
        with open_regular(path) as file:
            rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline=""))
            if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
                raise RunError(f"{path} has no column '{missing[0]}'; {remedy}")
            found = {}
            for row in rows:
                image = KnownImage(**{name: row[name] or "" for name in COLUMNS})
                if image.part not in PARTS or not image.name or image.name in found:
                    what = f"part '{image.part}', name '{image.name}'"
                    raise RunError(f"{path}, line {rows.line_num}, cannot be used ({what}); {remedy}")
                found[image.name] = image
    except (OSError, csv.Error) as error:
        raise RunError(f"{path} cannot be read: {error}; {remedy}") from error
    return list(found.values())


@dataclass
class Changes:
    """What became of a run's images.

    Attributes:
        gone: images that there are no more.
        new: names of images that the run does not know.
        moved: names of images that had other names.
        annotated: names of images whose label or annotation is another one.
        replaced: names of images with other contents.
    """

    gone: list[KnownImage] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    annotated: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)

    def sentences(self, source: str) -> tuple[str, ...]:
        """One for each kind of change."""
        by_part = ", ".join(f"{count} {part}" for part, count in Counter(one.part for one in self.gone).items())
        told = {
            f"gone from {source} since the training ({by_part})": [one.name for one in self.gone],
            f"new in {source} since the training, and left out": self.new,
            f"under other names in {source} than in the training, and known by their contents": self.moved,
            f"with other labels or annotations in {source} than in the training": self.annotated,
        }
        return tuple(f"{what}: {_listed(names)}" for what, names in told.items() if names)


def parts_as_trained(data: DataSplits[Any], known: Sequence[KnownImage]) -> tuple[DataSplits[Any], Changes]:
    """Data in the parts that a run had, whatever parts it has now, without images that the run does not know.

    An image is known by its name, or by its contents if it is no more where it was. Contents that occurred in training
    are never held out.

    Args:
        data: the images as they are now.
        known: the images of the run.
    """
    by_name = {one.name: one for one in known}
    kept = {record.name for _, record in _records(data) if _is_same(record, by_name.get(record.name))}
    absent: dict[str, list[KnownImage]] = defaultdict(list)
    for one in reversed(known):  # the last of a list, a training image if there is one, is taken first
        if one.name not in kept and one.image:
            absent[one.image].append(one)
    trained = {one.image for one in known if one.part == "train" and one.image}
    parts: dict[str, list[Record]] = {part: [] for part in PARTS}
    changes, found = Changes(), set()
    for _, record in _records(data):
        digest = record.digest[:DIGITS]
        if record.name in kept:
            before = by_name[record.name]
        elif absent.get(digest):
            before = absent[digest].pop()
            changes.moved.append(record.name)
        else:
            (changes.replaced if record.name in by_name else changes.new).append(record.name)
            continue
        found.add(before.name)
        parts["train" if digest in trained and record.name not in kept else before.part].append(record)
    changes.gone = [one for one in known if one.name not in found]
    had_test = any(one.part == "test" for one in known)
    return replace(
        data,
        train=replace(data.train, records=parts["train"]),
        val=replace(data.val, records=parts["val"]),
        test=replace(data.val, records=parts["test"]) if had_test else None,
    ), changes


def annotated_otherwise(data: DataSplits[Any], known: Sequence[KnownImage]) -> list[str]:
    """Names of the images whose label or annotation is not that of the run; the classes have the run's order."""
    before: Mapping[str, str] = {one.name: one.target for one in known}
    return [
        record.name for _, record in _records(data) if before.get(record.name, "") not in ("", _target_hash(record))
    ]


def refuse_replaced(changes: Changes, source: str, folder: Path) -> None:
    """
    Raises:
        DataError: images have other contents than in the training.
    """
    if changes.replaced:
        raise DataError(
            f"with other contents in {source} than in the training of {folder}: {_listed(changes.replaced)}; restore "
            f"them, or evaluate all images as they are now with: vitrail evaluate {folder} --data {source}"
        )


def _records(data: DataSplits[Any]) -> Iterator[tuple[str, Record]]:
    for part in PARTS:
        for record in getattr(data, part).records if getattr(data, part) is not None else ():
            yield part, record


def _is_same(record: Record, known: KnownImage | None) -> bool:
    """Whether an image has the contents that it had under this name, as far as they are known."""
    return known is not None and (not (record.digest and known.image) or record.digest[:DIGITS] == known.image)


def _target_hash(record: Record) -> str:
    line = record.fingerprint_line("").encode("utf-8", "surrogateescape")
    return hashlib.sha256(line).hexdigest()[:DIGITS]


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > MAX_SHOWN else ""
    return f"{len(names)} image{'s' * (len(names) > 1)}, {', '.join(names[:MAX_SHOWN])}{more}"
