"""Rules that all formats share: which files count, and what parts are called."""

from __future__ import annotations

import os
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.data.pixels.decode import IMAGE_SUFFIXES

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "holdout": "test",
    "test": "test",
    "testing": "test",
}
"""What people call a part -> what we call it."""


def data_folder(path: str, remedy: str) -> Path:
    """The folder with the data, absolute.

    Raises:
        DataError: there is none; the message ends with ``remedy``.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise DataError(f"data folder {path} does not exist; {remedy}")
    if not root.is_dir():
        listed = root.suffix.lower() in (".yaml", ".yml", ".json", ".csv", ".txt", ".data")
        first = f"give its folder, {root.parent}" if listed else f"unpack archives first, then {remedy}"
        raise DataError(f"data {path} is not a folder; {first}")
    return root.resolve()


def image_files(folder: Path, root: Path) -> list[Path]:
    """All visible image files below ``folder``, sorted; links that lead out of ``root`` are left out."""
    found: list[Path] = []
    for where, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in files:
            path = Path(where, name)
            if name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if not path.is_symlink() or leads_inside(path, root):
                found.append(path)
    return sorted(found)


def find_images(folder: Path) -> list[Path]:
    """All image files of a folder at any depth, by the same rules as for training data."""
    return image_files(folder, folder.resolve())


def leads_inside(path: Path, root: Path) -> bool:
    """The file that ``path`` names, after all links, lies in ``root`` and exists."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # a NUL in the name is a ValueError
        return False
    return target.is_relative_to(root) and target.is_file()


def is_visible_folder(entry: Path) -> bool:
    """A folder of its own, neither hidden nor a link."""
    return entry.is_dir() and not entry.is_symlink() and not entry.name.startswith((".", "__MACOSX"))
