"""Folders of images and of masks.

Layout: ``train/images/a.jpg`` with ``train/masks/a.png``, the same for ``val`` and ``test``; ``images/train`` with
``masks/train``; or ``images/`` and ``masks/`` alone, from which a validation part is cut. Masks are 8-bit files (grey
or palette) whose values are classes. ``classes.txt`` names them, one ``VALUE NAME`` a line, or only names, for 0, 1,
...; without it the values that occur are the classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set as AbstractSet
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data.check.problems import Problems
from vitrail.data.formats.csv_rows import read_lines, read_names
from vitrail.data.formats.layout import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    MASK_FOLDERS,
    PART_NAMES,
    image_files,
    one_called,
    part_of,
    visible_folders,
)
from vitrail.data.records import IGNORE, MaskedImage

EXACT_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff", ".gif"})
"""Kinds of file that keep the values of a mask."""

MASK_WORDS = frozenset(
    (  # noqa: SIM905 (a table)
        "mask masks seg segmentation segmap label labels labelids labeltrainids gt gtfine groundtruth annotation"
    ).split()
)
IMAGE_WORDS = frozenset({"image", "img", "im", "sat", "rgb", "leftimg8bit"})
"""Words at either end of a file's name that say what it holds, not which one it is."""

MOST_WORDS = (0, 1, 4)
"""Words that are left out of a name, at first as few as possible."""

REMEDY = (
    "give images/ and masks/ (or the same inside train/, val/ and test/), with a PNG mask for every image, or COCO JSON"
)

Key = tuple[Path | str | None, ...]
"""What an image and its mask have in common."""


def read_mask_files(root: Path, problems: Problems) -> list[MaskedImage]:
    """Images and their masks, by part and path.

    A mask has the path of its image, or its name alone where one image and one mask of the part have it. The name may
    have a word more, as in ``a_mask.png``. What does not fit, or fits several, is added to ``problems``.

    Raises:
        DataError: a part without ``images`` and ``masks``.
    """
    folders = [
        (folder, part)
        for folder in visible_folders(root)
        if (part := part_of(folder.name)) and (folder.name.lower() in PART_NAMES or all(_two_folders(folder)))
    ]
    records: list[MaskedImage] = []
    for folder, part in folders or [(root, "")]:
        images, masks = _two_folders(folder)
        if images is None or masks is None:
            raise DataError(f"{folder} has no images/ and masks/; {REMEDY}")
        pairs = _pairs(root, images, masks, problems)
        parts = {path: PART_NAMES.get(path.relative_to(images).parts[0].lower(), "") for path in pairs}
        inside = "train" in parts.values() and all(parts.values())  # images/train, images/val
        for path, mask in pairs.items():
            records.append(
                MaskedImage(
                    name=path.relative_to(root).as_posix(),
                    source=path,
                    part=parts[path] if inside and not part else part,
                    mask_name=mask.relative_to(root).as_posix(),
                    read_mask=partial(read_mask, mask),
                )
            )
    return records


def _two_folders(folder: Path) -> tuple[Path | None, Path | None]:
    inside = visible_folders(folder)
    masks = one_called(inside, ("masks", "labels")) or one_called(inside, (*MASK_FOLDERS, *LABEL_FOLDERS))
    return one_called(inside, IMAGE_FOLDERS), masks


def _pairs(root: Path, images: Path, masks: Path, problems: Problems) -> dict[Path, Path]:
    """Image -> its mask, in the order of the images."""
    every = image_files(images, root)
    exact = [path for path in image_files(masks, root) if path.suffix.lower() in EXACT_SUFFIXES]
    lossy = {path.relative_to(masks).with_suffix(""): path for path in set(image_files(masks, root)) - set(exact)}
    found: dict[Path, Path] = {}
    doubtful: set[Path] = set()
    for by_path, most in product((True, False), MOST_WORDS):
        owned = _grouped([path.relative_to(images) for path in every], IMAGE_WORDS, by_path, most)
        fit = _grouped([path.relative_to(masks) for path in exact], MASK_WORDS, by_path, most)
        taken = doubtful.union(found, found.values())
        for key in (key for key in owned if key in fit):
            owners, fitting = [images / path for path in owned[key]], [masks / path for path in fit[key]]
            if not taken.isdisjoint(owners + fitting):
                continue
            if len(owners) == len(fitting) == 1:
                found[owners[0]] = fitting[0]
            elif by_path:
                doubtful.update(owners, fitting)
                shown = [", ".join(one.relative_to(root).as_posix() for one in ones) for ones in (owners, fitting)]
                for path in owners:
                    name = path.relative_to(root).as_posix()
                    problems.add(name, f"it is not clear which mask is whose (images {shown[0]}; masks {shown[1]})")
    for path in every:
        if path not in found and path not in doubtful:
            name, own = path.relative_to(root).as_posix(), path.relative_to(images)
            wanted = (masks / own).with_suffix(".png").relative_to(root).as_posix()
            near = lossy.get(own.with_suffix(""))
            reason = f"; {near.name} is of a kind that does not keep values, save it as PNG" if near else ""
            problems.add(name, f"there is no mask {wanted}{reason}")
    for path in sorted(set(exact).difference(doubtful, found.values())):
        problems.add(path.relative_to(root).as_posix(), "there is no image for this mask")
    return {path: found[path] for path in every if path in found}


def _grouped(paths: Iterable[Path], words: AbstractSet[str], by_path: bool, most: int) -> dict[Key, list[Path]]:
    """Paths by their names, in which up to ``most`` of ``words`` at the ends do not count, and by their folders."""
    groups: dict[Key, list[Path]] = {}
    for path in paths:
        groups.setdefault((path.parent if by_path else None, *_name(path.stem, words, most)), []).append(path)
    return groups


def _name(stem: str, words: AbstractSet[str], most: int) -> list[str]:
    kept = re.split(r"[\s_.-]+", stem) if most else [stem]
    for end in (-1, 0):
        while most and len(kept) > 1 and kept[end].lower() in words:
            kept.pop(end)
            most -= 1
    return kept


def read_mask(path: Path) -> np.ndarray:
    """The values (h, w), uint8, of a mask.

    Raises:
        DataError: unreadable, or not 8-bit with one channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "1"):
                raise DataError(f"{path} is a mask of mode {image.mode}; save it as 8-bit grey or palette PNG")
            return np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no readable mask ({str(error).splitlines()[0]}); write it again") from error


def read_class_names(root: Path, values: AbstractSet[int]) -> dict[int, str]:
    """Value in the masks -> name of the class, from ``classes.txt``; without it, ``values`` name themselves.

    Raises:
        DataError: a file that cannot be read, or that names a value or a class twice.
    """
    file = root / "classes.txt"
    if not file.is_file():
        return {value: str(value) for value in sorted(values - {IGNORE})}
    lines = read_lines(file, "one 'VALUE NAME' a line")
    numbered = all(line.split()[0].isdigit() and len(line.split()) > 1 for line in lines)
    lines = lines if numbered else read_names(file)
    pairs = [
        (int(line.split()[0]), line.split(maxsplit=1)[1]) if numbered else (i, line) for i, line in enumerate(lines)
    ]
    for number, (value, name) in enumerate(pairs, start=1):
        if value > IGNORE:
            raise DataError(f"{file} line {number}: value {value} of '{name}' is above 255, the largest in a mask")
    if len(dict(pairs)) < len(pairs) or len({name for _, name in pairs}) < len(pairs):
        raise DataError(f"{file} names a value or a class twice; give each its own line")
    return dict(pairs)
