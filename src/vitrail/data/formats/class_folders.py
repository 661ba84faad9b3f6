"""Class folders: ``cat/1.jpg``, or the same inside folders for the parts (``train``, ``seg_test``, ``dev``), or parts
inside the class folders (``cat/train/1.jpg``). Folders that an archive has wrapped around them make no difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.data.check.problems import LeftOut, Problems
from vitrail.data.formats.layout import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    MASK_FOLDERS,
    PART_NAMES,
    has_images,
    image_files,
    inner_folder,
    left_out,
    one_called,
    part_of,
    rest_of,
    visible_folders,
)
from vitrail.data.formats.own_folders import holds_own_folders
from vitrail.data.pixels.decode import IMAGE_SUFFIXES
from vitrail.data.records import LabelledImage

REMEDY = "give a folder with one folder of images for each class, or 'sample' for the built-in data"

Listing = tuple[tuple[str, ...], list[LabelledImage]]
"""Names of the classes, and images in the order of their names."""

EMPTY = "is a class folder without images"

Row = tuple[Path, str, str]
"""Image, name of its class, part."""


def read_class_folders(root: Path, problems: Problems) -> Listing:
    """The images of a folder that exists.

    Where all images are kept for evaluation (``val_fraction`` is 1), one class is enough, a folder without images is no
    class, and no part is needed for training.

    Args:
        root: the data folder.
        problems: takes class folders without images that are left out.

    Raises:
        DataError: no images, no classes to tell apart, a class without training images, or folders whose meaning is
            not clear.
    """
    folders = visible_folders(root)
    _refuse_annotations(folders)
    parts = _parts(root, folders)
    rows = _rows_of_parts(root, parts, problems) if parts else _rows_of_classes(root, folders, problems)
    if not rows:
        raise _nothing_found(root)
    evaluating = problems.config.val_fraction == 1
    classes = tuple(sorted({name for _, name, part in rows if evaluating or part in ("train", "")}))
    if not evaluating:
        _require_training(root, rows, classes)
    index = {name: label for label, name in enumerate(classes)}
    named = sorted((path.relative_to(root).as_posix(), index[name], part) for path, name, part in rows)
    return classes, [
        LabelledImage(name=name, source=root / name, part=part, label=label) for name, label, part in named
    ]


def _parts(root: Path, folders: Sequence[Path]) -> dict[Path, str]:
    """Folder -> the part that it is, where folders are parts and not classes.

    Raises:
        DataError: folders are called as parts, but have images and no class folders, or two are the same part.
    """
    named = {folder: part for folder in folders if (part := part_of(folder.name))}
    if not named:
        return {}
    exact = {folder for folder in named if folder.name.lower() in PART_NAMES}
    several = len(set(named.values())) > 1 and len({rest_of(folder.name) for folder in named}) == 1
    holders = {folder: part for folder, part in named.items() if _class_names(folder)}
    others = [folder for folder in folders if folder not in named and has_images(folder, root)]
    learnt = [folder for folder, part in holders.items() if part == "train"]
    sure = exact.intersection(learnt) or (several and not any(map(_class_names, others)))
    if (learnt and sure) or (holders and len(exact) == len(folders)):
        classes = {one for folder in learnt for one in _class_names(folder)}
        holders = {
            folder: part
            for folder, part in holders.items()
            if folder in exact or several or classes.issuperset(_class_names(folder))
        }
        twice = [part for part, count in Counter(holders.values()).items() if count > 1]
        if twice:
            names = _some(sorted(folder.name for folder, part in holders.items() if part == twice[0]))
            raise DataError(f"{root} has more than one folder for '{twice[0]}' ({names}); keep one of them")
        return holders
    learnt = [folder for folder, part in named.items() if part == "train" and has_images(folder, root)]
    if learnt and not holders and ((several and not others) or len({named[one] for one in exact}) > 1):
        names = _some([f"{folder.name}/" for folder in named])
        raise DataError(
            f"{root} has {names}, which were read as parts of the data, but have images and no class folders; put the "
            f"images of each class into a folder of its own, or list them in labels.csv with a column 'split'"
        )
    return {}


def _class_names(folder: Path) -> list[str]:
    """The folders with images that a part has."""
    return [one.name for one in visible_folders(inner_folder(folder)) if has_images(one, folder)]


def _rows_of_parts(root: Path, parts: dict[Path, str], problems: Problems) -> list[Row]:
    rows: list[Row] = []
    known: set[str] = set()
    for folder, part in sorted(parts.items(), key=lambda one: (one[1] != "train", one[0])):
        inner = inner_folder(folder, known)
        _refuse_annotations(visible_folders(inner))
        files = {one: image_files(one, root) for one in visible_folders(inner)}
        if part == "train":
            known = {one.name for one in files}
            _refuse_same_folders(root, [one for one in files if files[one]], problems)
        for one, found in files.items():
            rows += [(path, one.name, part) for path in found]
            if not found:
                problems.leave_out([LeftOut(one.relative_to(root).as_posix(), EMPTY)])
    return rows


def _rows_of_classes(root: Path, folders: Sequence[Path], problems: Problems) -> list[Row]:
    every = {folder: image_files(folder, root) for folder in folders}
    files = {folder: found for folder, found in every.items() if found or not holds_own_folders(folder)}
    evaluating = problems.config.val_fraction == 1
    empty = [folder.name for folder, found in files.items() if not found]
    if empty and not evaluating and any(files.values()):
        raise DataError(
            f"{len(empty)} class folders of {root} have no images ({_some(empty)}{_found(root / empty[0])}); "
            f"add images ({_suffixes()}) or remove the folders"
        )
    problems.leave_out(LeftOut(name, EMPTY) for name in empty)
    pairs = [(folder, path) for folder, found in files.items() for path in found]
    parts = [PART_NAMES.get(path.relative_to(folder).parts[0].lower(), "") for folder, path in pairs]
    if "train" in parts and all(parts):
        return [(path, folder.name, part) for (folder, path), part in zip(pairs, parts, strict=True)]
    _refuse_same_folders(root, list(files), problems)
    return [(path, folder.name, "") for folder, path in pairs]


def _refuse_annotations(folders: Sequence[Path]) -> None:
    """Images beside their masks or labels are no classes."""
    images, masks, labels = (one_called(folders, names) for names in (IMAGE_FOLDERS, MASK_FOLDERS, LABEL_FOLDERS))
    if images is None or (masks is None and labels is None):
        return
    task = "segmentation" if masks is not None else "detection or --task segmentation"
    found = " and ".join(f"{folder.name}/" for folder in (images, masks, labels) if folder is not None)
    raise DataError(
        f"{folders[0].parent} has {found}, which look like images and their annotations and not like classes; pass "
        f"--task {task}, or rename the folders if they are classes"
    )


def _refuse_same_folders(root: Path, folders: Sequence[Path], problems: Problems) -> None:
    """``2023/cat``, ``2023/dog``, ``2024/cat``, ``2024/dog``: are the years the classes, or cat and dog? And what is
    ``pets`` in ``cat``, ``dog``, ``pets/cat``, ``pets/dog``?"""
    if problems.config.val_fraction == 1:
        return  # the classes of the model decide
    inside = [{one.name for one in visible_folders(folder) if has_images(one, root)} for folder in folders]
    names = {folder.name for folder in folders}
    for folder, inner in zip(folders, inside, strict=True):
        if len(inner) > 1 and inner < names:
            raise DataError(
                f"{folder} has folders of the same names as those beside it ({_some(sorted(inner))}), so that it is no "
                f"class; move its images to them, or remove it"
            )
    if len(folders) > 1 and len(inside[0]) > 1 and all(inner == inside[0] for inner in inside):
        outer, shared = _some([folder.name for folder in folders]), _some(sorted(inside[0]))
        raise DataError(
            f"each of the folders {outer} of {folders[0].parent} has the same folders {shared}, and either may be the "
            f"classes; put the images of each class into one folder without such folders, name parts train, val and "
            f"test, or list the images in labels.csv"
        )


def _require_training(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    if not classes:
        raise DataError(f"{root} has no training images; add a folder train/ with a folder of images for each class")
    unknown = sorted({name for _, name, _ in rows} - set(classes))
    if unknown:
        raise DataError(
            f"{root} has classes for validation or testing that have no training images ({_some(unknown)}); "
            f"add images to train/ or remove those folders"
        )
    if len(classes) < 2:
        raise DataError(
            f"{root} has only one class ({classes[0]}), and telling classes apart needs at least 2; {REMEDY}"
        )


def _nothing_found(root: Path) -> DataError:
    """Say what is there instead of class folders with images."""
    if has_images(root, root) and not visible_folders(root):
        return DataError(f"{root} has images but no class folders; {REMEDY}")
    return DataError(f"{root} has no images in class folders{_found(root)}, known are {_suffixes()}; {REMEDY}")


def _found(folder: Path) -> str:
    """What is in a folder instead of images."""
    others = Counter(path.suffix.lower() for path in folder.rglob("*") if path.is_file() and path.suffix)
    kinds = [f"{count} {suffix}" for suffix, count in others.most_common(3)]
    unusable = [f"{one.path}, which {one.reason}" for one in left_out(folder)]
    return f"; found {'; '.join([', '.join(kinds), *unusable[:1]])}" if kinds or unusable else ""


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))
