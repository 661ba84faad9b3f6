"""Folders of images and of masks.

Layout: ``train/images/a.jpg`` with ``train/masks/a.png``, the same for ``val`` and ``test``; or ``images/`` and
``masks/`` alone, from which a validation part is cut. Masks are 8-bit PNG files (grey or palette) whose values are
classes. ``classes.txt`` names them, one ``VALUE NAME`` a line, or only names, for 0, 1, ...; without it the values that
occur are the classes.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data.check.problems import Problems
from vitrail.data.formats.csv_rows import read_lines, read_names
from vitrail.data.formats.layout import PART_NAMES, image_files, is_visible_folder
from vitrail.data.records import IGNORE, MaskedImage

MASK_FOLDERS = ("masks", "labels")
REMEDY = (
    "give images/ and masks/ (or the same inside train/, val/ and test/), with a PNG mask for every image, or COCO JSON"
)


def read_mask_files(root: Path, problems: Problems) -> list[MaskedImage]:
    """Images and their masks, by part and path.

    Raises:
        DataError: a part without ``images`` and ``masks``.
    """
    folders = [
        (entry, PART_NAMES[entry.name.lower()])
        for entry in sorted(root.iterdir())
        if is_visible_folder(entry) and entry.name.lower() in PART_NAMES
    ]
    records: list[MaskedImage] = []
    for folder, part in folders or [(root, "")]:
        where = next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), None)
        if where is None or not (folder / "images").is_dir():
            raise DataError(f"{folder} has no images/ and masks/; {REMEDY}")
        masks = {path.stem: path for path in image_files(where, root) if path.suffix.lower() == ".png"}
        for path in image_files(folder / "images", root):
            name = path.relative_to(root).as_posix()
            if path.stem in masks:
                mask = masks.pop(path.stem)
                read = partial(read_mask, mask)
                records.append(MaskedImage(name=name, source=path, part=part, mask_name=mask.name, read_mask=read))
            else:
                problems.add(name, f"there is no mask {where.relative_to(root).as_posix()}/{path.stem}.png")
        for path in masks.values():
            problems.add(path.relative_to(root).as_posix(), "there is no image for this mask")
    return records


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
