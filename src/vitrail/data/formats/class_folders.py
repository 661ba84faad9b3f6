"""Class folders: ``cat/1.jpg``, or the same inside ``train``/``val``/``test``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.data.formats.layout import PART_NAMES, image_files, is_visible_folder
from vitrail.data.formats.own_folders import holds_own_folders
from vitrail.data.pixels.decode import IMAGE_SUFFIXES
from vitrail.data.records import LabelledImage

REMEDY = "give a folder with one folder of images for each class, or 'sample' for the built-in data"

Listing = tuple[tuple[str, ...], list[LabelledImage]]
"""Names of the classes, and images in the order of their names."""


def read_class_folders(root: Path) -> Listing:
    """The images of a folder that exists.

    Raises:
        DataError: no images, one class, an empty class, or classes that have no training images.
    """
    folders = [entry.name for entry in root.iterdir() if is_visible_folder(entry)]
    parts = {name: PART_NAMES[name.lower()] for name in folders if name.lower() in PART_NAMES}
    if "train" in parts.values():
        return _list_parts(root, parts)
    return _list_classes(root, sorted(folders))


def _list_classes(root: Path, folders: list[str]) -> Listing:
    files = {name: image_files(root / name, root) for name in folders}
    folders = [name for name in folders if files[name] or not holds_own_folders(root / name)]
    if not any(files.values()):
        raise _nothing_found(root)
    empty = [name for name in folders if not files[name]]
    if empty:
        raise DataError(
            f"{len(empty)} class folders of {root} have no images ({_some(empty)}); "
            f"add images ({_suffixes()}) or remove the folders"
        )
    if len(folders) < 2:
        raise DataError(
            f"{root} has only one class ({folders[0]}), and telling classes apart needs at least 2; {REMEDY}"
        )
    pairs = [(path, label) for label, name in enumerate(folders) for path in files[name]]
    return _listing(root, tuple(folders), [(path, label, "") for path, label in pairs])


def _list_parts(root: Path, folders: dict[str, str]) -> Listing:
    twice = [part for part, count in Counter(folders.values()).items() if count > 1]
    if twice:
        raise DataError(
            f"{root} has more than one folder for '{twice[0]}' ({_some(sorted(folders))}); keep one of them"
        )
    rows: list[tuple[Path, str, str]] = []
    for folder, part in sorted(folders.items()):
        for entry in sorted((root / folder).iterdir()):
            if is_visible_folder(entry):
                rows += [(path, entry.name, part) for path in image_files(entry, root)]
    classes = tuple(sorted({name for _, name, part in rows if part == "train"}))
    if not classes:
        raise _nothing_found(root)
    if len(classes) < 2:
        raise DataError(
            f"{root} has only one class ({classes[0]}), and telling classes apart needs at least 2; {REMEDY}"
        )
    unknown = sorted({name for _, name, _ in rows} - set(classes))
    if unknown:
        raise DataError(
            f"{root} has classes for validation or testing that have no training images ({_some(unknown)}); "
            f"add images to train/ or remove those folders"
        )
    index = {name: label for label, name in enumerate(classes)}
    return _listing(root, classes, [(path, index[name], part) for path, name, part in rows])


def _listing(root: Path, classes: tuple[str, ...], rows: list[tuple[Path, int, str]]) -> Listing:
    named = sorted((path.relative_to(root).as_posix(), label, part) for path, label, part in rows)
    return classes, [
        LabelledImage(name=name, source=root / name, part=part, label=label) for name, label, part in named
    ]


def _nothing_found(root: Path) -> DataError:
    """Say what is there instead of class folders with images."""
    if image_files(root, root) and not any(is_visible_folder(entry) for entry in root.iterdir()):
        return DataError(f"{root} has images but no class folders; {REMEDY}")
    links = any(entry.is_symlink() for entry in root.rglob("*"))
    if links:
        return DataError(
            f"{root} has no images of its own, only symbolic links, which are not followed; copy the files"
        )
    others = Counter(path.suffix.lower() for path in root.rglob("*") if path.is_file() and path.suffix)
    found = f"found {', '.join(f'{count} {suffix}' for suffix, count in others.most_common(3))}; " if others else ""
    return DataError(f"{root} has no images ({found}known are {_suffixes()}); {REMEDY}")


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))
