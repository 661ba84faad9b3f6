"""The parts of a data set, and how a validation part is cut where the data names none."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

import torch

from vitrail.core.errors import DataError
from vitrail.core.paths import NOT_UTF8
from vitrail.core.types import PixelRange
from vitrail.data.check.problems import Problems, readable
from vitrail.data.data_config import DataConfig
from vitrail.data.records import BoxedImage, LabelledImage, MultiLabelImage, Record
from vitrail.data.sets.copies import describe_copies, originals
from vitrail.data.sets.image_set import LabelledSamples
from vitrail.data.sets.samples import Samples, draw_order

AnySamples = TypeVar("AnySamples", bound=Samples)
Part_co = TypeVar("Part_co", bound=Samples, covariant=True)


@dataclass(frozen=True)
class DataSplits(Generic[Part_co]):
    """A data set ready for use.

    Attributes:
        classes: names, in the order of the labels; empty where targets name no classes.
        train, val, test: the parts; ``test`` is None where the data has none.
        fingerprint: SHA-256 over names, targets and contents of all usable images; independent of where they lie.
        skipped: "path: reason" for every image or annotation that was left out.
        source: path as the user gave it.
        remarks: sentences on what was decided about the data, for people who train with it.
        warnings: sentences on what looks wrong with the data, for everybody.
        num_skipped: number of files and annotations that were left out.
        pixel_range: values that become black and white in grey images of more than 8 bits; None without such images.
        undecodable: those of ``skipped`` that are images which cannot be decoded.
        wrong_annotations: those of ``skipped`` that are annotations.
    """

    classes: tuple[str, ...]
    train: Part_co
    val: Part_co
    test: Part_co | None
    fingerprint: str
    skipped: tuple[str, ...]
    source: str
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    num_skipped: int = 0
    pixel_range: PixelRange | None = None
    undecodable: tuple[str, ...] = ()
    wrong_annotations: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Part_co]:
        """The parts that have images, by name."""
        every = {"train": self.train, "val": self.val} | ({} if self.test is None else {"test": self.test})
        return {name: part for name, part in every.items() if len(part)}

    def choose(self, name: str) -> Part_co:
        """One part, or the images of all parts for "all".

        Raises:
            DataError: there is no such part.
        """
        parts = self.parts
        if name == "all":
            return replace(self.train, records=[record for part in parts.values() for record in part.records])
        if name not in parts:
            counts = ", ".join(f"{known} ({len(part)} images)" for known, part in parts.items())
            raise DataError(f"{self.source} has no part '{name}'; it has {counts or 'no images'}")
        return parts[name]

    @property
    def held_out(self) -> Part_co:
        """What to evaluate on: the test images, or the validation images where there are none."""
        return self.val if self.test is None else self.test

    def align(self, classes: Sequence[str]) -> Self:
        """The same data with the labels of a model that was trained with ``classes``.

        Raises:
            DataError: the data has a class that the model does not know; a class without samples is no matter.
        """
        if tuple(classes) == self.classes:
            return self
        parts = [self.train, self.val, *([] if self.test is None else [self.test])]
        unknown = [
            name
            for label, name in enumerate(self.classes)
            if name not in classes and any(part.occurs(label) for part in parts)
        ]
        if unknown:
            known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise DataError(
                f"{self.source} has {len(unknown)} classes that the model does not know ({', '.join(unknown[:5])}); "
                f"rename the folders to the model's classes: {known}"
            )
        table = torch.tensor([list(classes).index(name) if name in classes else -1 for name in self.classes])
        train, val, *test = (part.renumber(table).for_classes(len(classes)) for part in parts)
        return replace(self, classes=tuple(classes), train=train, val=val, test=test[0] if test else None)


def cut_by_name(samples: Samples, config: DataConfig) -> list[int]:
    """Indices of the validation part: ``config.val_fraction`` of the samples, chosen by seed and name.

    Raises:
        DataError: nothing would be left to train on.
    """
    count = max(round(len(samples) * config.val_fraction), 1)
    if count == len(samples) and config.val_fraction < 1:
        raise DataError(f"{config.path} has {count} image for training and validation; give at least 2")
    return draw_order(samples.names, config.seed)[:count]


def cut_by_class(samples: LabelledSamples, config: DataConfig) -> list[int]:
    """Indices of the validation part: ``config.val_fraction`` of every class (at least one image, never all of them),
    chosen by seed and name. Fraction 1 takes everything.

    Raises:
        DataError: a class has one image only.
    """
    if config.val_fraction == 1:
        return list(range(len(samples)))
    names, labels = samples.names, samples.labels.tolist()
    counts = Counter(labels)
    single = [names[labels.index(label)] for label, count in sorted(counts.items()) if count == 1]
    if single:
        raise DataError(
            f"{len(single)} {'classes have' if len(single) > 1 else 'class has'} only one image, which cannot be split "
            f"into training and validation ({', '.join(single[:5])}); add images, or give train/ and val/ folders"
        )
    quota = {label: min(max(round(count * config.val_fraction), 1), count - 1) for label, count in counts.items()}
    chosen: list[int] = []
    for index in draw_order(names, config.seed):
        if quota[labels[index]] > 0:
            quota[labels[index]] -= 1
            chosen.append(index)
    return chosen


def as_splits(
    samples: AnySamples,
    config: DataConfig,
    *,
    classes: Sequence[str],
    fingerprint: str,
    problems: Problems,
    cut: Callable[[Any, DataConfig], list[int]] = cut_by_name,
) -> DataSplits[AnySamples]:
    """Samples as a data set: in the parts that their records name; where there is no validation part,
    ``cut`` gives the indices of those training samples that become one. Remarks name classes that no training sample
    has, and those whose names differ in capitals only.

    Args:
        samples: samples that are usable.
        config: how they are split.
        classes: names, in the order of the labels.
        fingerprint: hash of names, targets and contents.
        problems: what was found on the way; it is listed in the result.
        cut: function that cuts the validation part.

    Raises:
        DataError: too few images to cut, only some are in a part, a class whose name no text file can hold, or a
            warning where ``config.strict`` allows none.
    """
    samples = replace(samples, pixel_range=problems.pixel_range, damaged=frozenset(problems.damaged))
    for name in classes:
        if NOT_UTF8.search(name):
            raise DataError(f"{config.path} has a class {name!r}, whose name is no UTF-8 text; rename it")
    found = _by_part(samples, config, problems, cut)
    train = samples.subset(found["train"])
    parts = {name: [samples.records[i] for i in found[name]] for name in ("train", "val", "test")}
    warnings = tuple(map(readable, (*problems.warnings, *describe_copies(parts, problems.digests))))
    if warnings and config.strict:
        raise DataError(f"{config.path}: {warnings[0]} (--strict allows no warning about the data)")
    return DataSplits(
        classes=tuple(classes),
        train=train,
        val=samples.subset(found["val"]),
        test=samples.subset(found["test"]) if found["test"] else None,
        fingerprint=fingerprint,
        skipped=problems.listed(),
        source=config.path,
        remarks=(*problems.remarks, *_alike(classes), *_untrained(classes, train.records), *problems.summary()),
        num_skipped=problems.count,
        warnings=warnings,
        pixel_range=problems.pixel_range,
        undecodable=problems.undecodable,
        wrong_annotations=problems.wrong_annotations,
    )


def _by_part(
    samples: Samples, config: DataConfig, problems: Problems, cut: Callable[[Any, DataConfig], list[int]]
) -> dict[str, list[int]]:
    """Part -> indices of its samples; copies of an image stay together where a part is cut.

    Raises:
        DataError: too few images to cut, or only some are in a part.
    """
    found: dict[str, list[int]] = {"train": [], "val": [], "test": [], "": []}
    for index, record in enumerate(samples.records):
        found[record.part].append(index)
    if 0 < len(found[""]) < len(samples):
        first = samples.records[found[""][0]].name
        raise DataError(
            f"{config.path} has {len(found[''])} images in no part, such as {first}, and others in train, val or test; "
            f"move them into a part"
        )
    undecided = found[""] or ([] if found["val"] or config.val_fraction == 1 else found["train"])
    if undecided:
        leaders = originals([samples.records[i] for i in undecided], problems.digests)
        own = sorted(set(leaders))
        chosen = {own[i] for i in cut(samples.subset([undecided[i] for i in own]), config)}
        kept = {i for i, leader in zip(undecided, leaders, strict=True) if leader in chosen}
        found["train"], found["val"] = [i for i in undecided if i not in kept], sorted(kept)
    return found


def _alike(classes: Sequence[str]) -> list[str]:
    counts = Counter(name.casefold() for name in classes)
    names = [name for name in classes if counts[name.casefold()] > 1]
    return [f"Classes whose names differ in capitals only: {', '.join(names[:6])}"] if names else []


def _untrained(classes: Sequence[str], records: Sequence[Record]) -> list[str]:
    labels = [record.labels for record in records if isinstance(record, BoxedImage | MultiLabelImage)]
    labels += [(record.label,) for record in records if isinstance(record, LabelledImage)]
    seen = {label for some in labels for label in some}
    names = [name for label, name in enumerate(classes) if label not in seen]
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return [f"Classes without training samples: {len(names)} of {len(classes)} ({shown})"] if labels and names else []


def fingerprint(head: str, records: Iterable[Record], digests: Mapping[str, str]) -> str:
    """SHA-256 over what all samples have in common (``head``) and a line for each, in the order of their names;
    ``digests`` are the SHA-256 of the image files by the samples' names."""
    total = hashlib.sha256(head.encode())
    for record in sorted(records, key=lambda one: one.name):
        total.update(record.fingerprint_line(digests[record.name]).encode("utf-8", "surrogateescape"))
    return total.hexdigest()
