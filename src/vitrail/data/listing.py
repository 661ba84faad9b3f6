"""A list of images with their classes and parts, as every layout gives it, and the rules on which files count."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vitrail.data.decode import IMAGE_SUFFIXES

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Listing:
    """Images that a folder offers, unchecked.

    Attributes:
        root: the folder; ``names`` are relative to it, with forward slashes, sorted.
        classes: class names in the order of the labels.
        names, labels, parts: one entry an image; a part is "train", "val", "test", or "" where it is ours to choose.
    """

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    parts: tuple[str, ...]


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
    except (OSError, RuntimeError):
        return False
    return target.is_relative_to(root) and target.is_file()


def is_visible_folder(entry: Path) -> bool:
    """A folder of its own, neither hidden nor a link."""
    return entry.is_dir() and not entry.is_symlink() and not entry.name.startswith((".", "__MACOSX"))
