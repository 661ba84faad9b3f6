"""Images with a class for every pixel: folders of images and of masks, or COCO's JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitrail.core.errors import DataError
from vitrail.data.check.problems import Problems
from vitrail.data.data_config import DataConfig
from vitrail.data.formats.coco_masks import coco_kind, read_coco_masks
from vitrail.data.formats.layout import data_folder, inner_folder, leave_out_rest
from vitrail.data.formats.mask_files import REMEDY, read_class_names, read_mask_files
from vitrail.data.formats.tool_exports import describe_found
from vitrail.data.mirror import classes_with_sides, describe_sides
from vitrail.data.pixels.decode import image_size_of
from vitrail.data.records import IGNORE, MaskedImage
from vitrail.data.sets.mask_set import MaskSet
from vitrail.data.sets.splits import DataSplits, as_splits, fingerprint

IGNORED_NAMES = frozenset({"unlabelled", "unlabeled", "void", "ignore", "ignored"})
"""Classes that are neither learnt nor measured, as is value 255."""

MANY_VALUES = 30
RARE = 0.001
"""More values than these, and shares of the pixels below this, are more often grey levels than classes."""

LARGE_SHARE = 0.25
"""Share of the pixels above which value 255 may be meant as a class."""


def load_masks(config: DataConfig, *, progress: bool = False) -> DataSplits[MaskSet]:
    """Find, check and split images and masks.

    Raises:
        DataError: no images, fewer than two classes, or annotations that are wrong (unless
            ``config.bad_annotations`` is "skip": then their images are left out, and listed in ``skipped``).
    """
    root = inner_folder(data_folder(config.path, REMEDY))
    problems = Problems(config)
    kind = coco_kind(root)
    with problems.told_first():
        if kind is None:
            names, records = None, read_mask_files(root, problems)
        else:
            names, records = read_coco_masks(root, kind, problems)
        if not records:
            raise DataError(f"{root} has no images with masks; {describe_found(root)}{REMEDY}")
    leave_out_rest(root, [name for record in records for name in record.files], problems)
    digests = problems.check_images(root, [record.name for record in records], progress=progress)
    with ThreadPoolExecutor() as pool:
        contents = dict(zip((record.name for record in records), pool.map(_inspect, records), strict=True))
    for record in records:
        if isinstance(reason := contents[record.name], str):
            problems.add(record.name, reason)
    counts = sum((mask.counts for mask in contents.values() if isinstance(mask, _Contents)), np.zeros(256, np.int64))
    values = frozenset(np.flatnonzero(counts).tolist())
    if names is None:
        names = read_class_names(root, values)
        problems.warnings += _describe_values(root, counts, names)
    with problems.told_first():
        classes, table = _number(root, names, values, config.ignore_classes)
    _check_values(records, contents, names, problems)
    good = [
        replace(record, mask_digest=mask.digest)
        for record in problems.usable(records)
        if isinstance(mask := contents[record.name], _Contents)
    ]
    sides = classes_with_sides(classes)
    problems.remark(describe_sides(sides))
    return as_splits(
        MaskSet(records=good, table=table, max_pixels=config.max_pixels, mirrored_alike=not sides),
        config,
        classes=classes,
        fingerprint=fingerprint(repr([names, classes]), good, digests),
        problems=problems,
    )


@dataclass(frozen=True)
class _Contents:
    """Number of pixels of each value, (256,), and SHA-256 of the values."""

    counts: np.ndarray
    digest: str


def _inspect(record: MaskedImage) -> _Contents | str:
    """What is in a mask, or what is wrong with it."""
    try:
        mask = record.read_mask()
        size = None if isinstance(record.source, bytes) else image_size_of(record.source)
    except DataError as error:
        return str(error)
    if size is not None and mask.shape != size:
        return (
            f"{record.mask_name} is {mask.shape[1]}x{mask.shape[0]} pixels, but the image is {size[1]}x{size[0]}; "
            f"masks have the size of their images"
        )
    return _Contents(np.bincount(mask.ravel(), minlength=256), hashlib.sha256(mask.tobytes()).hexdigest())


def _describe_values(root: Path, counts: np.ndarray, names: dict[int, str]) -> list[str]:
    """Sentences on values that are probably not what the user means."""
    found = []
    shares = counts / max(counts.sum(), 1)
    classes = [value for value in np.flatnonzero(counts).tolist() if value != IGNORE]
    named = (root / "classes.txt").is_file()
    if not named and len(classes) > MANY_VALUES:
        rare = sum(0 < share < RARE for share in shares)
        found.append(
            f"The masks have {len(classes)} values, and each becomes a class; {rare} of them cover less than "
            f"{RARE:.1%} of the pixels. Masks that were smoothed or saved as JPEG look like that; name the true values "
            f"in classes.txt"
        )
    meant = named and names.get(IGNORE, "ignore").casefold() not in IGNORED_NAMES
    gaps = not named and classes != list(range(len(classes)))
    if meant or (counts[IGNORE] and (gaps or shares[IGNORE] > LARGE_SHARE)):
        found.append(
            f"Value {IGNORE} covers {shares[IGNORE]:.1%} of the masks' pixels and means 'ignore': it is neither learnt "
            f"nor measured; if it is a class, save it as another value (the others are {_some(classes)})"
        )
    return found


def _some(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")


def _check_values(
    records: Sequence[MaskedImage], contents: dict[str, _Contents | str], names: dict[int, str], problems: Problems
) -> None:
    for record in records:
        mask = contents[record.name]
        if isinstance(mask, str):
            continue
        if unknown := sorted(set(np.flatnonzero(mask.counts).tolist()) - names.keys() - {IGNORE}):
            problems.add(record.name, f"{record.mask_name} has values that are no class: {_some(unknown)}")


def _number(
    root: Path, names: dict[int, str], values: AbstractSet[int], ignored: Sequence[str]
) -> tuple[tuple[str, ...], Tensor]:
    """Class names in order, and the table from values to their indices; ``values`` are those that occur."""
    unknown = set(ignored) - set(names.values())
    if unknown:
        raise DataError(
            f"ignore_classes has '{sorted(unknown)[0]}', but {root} has the classes {', '.join(names.values())}"
        )
    kept = [
        (value, name)
        for value, name in sorted(names.items())
        if value != IGNORE and name not in ignored and name.casefold() not in IGNORED_NAMES
    ]
    if len(kept) < 2:
        seen = f"; the masks have the values {_some(sorted(values))}" if values else ""
        meaning = f", and {IGNORE} means 'ignore': save the classes as 0, 1, 2, ..." if IGNORE in values else ""
        raise DataError(
            f"{root} has {len(kept)} classes besides the ignored ones, and telling classes apart needs at least 2"
            f"{seen}{meaning}"
        )
    table = torch.full((256,), IGNORE, dtype=torch.uint8)
    for index, (value, _) in enumerate(kept):
        table[value] = index
    return tuple(name for _, name in kept), table
