"""Where COCO's JSON files are, of which part of the data each is, and where its images are.

Labelling tools disagree about all three: ``annotations/instances_train2017.json`` with ``train2017/`` (COCO),
``annotations/instances_default.json`` with ``images/default/`` (CVAT), ``train/_annotations.coco.json`` beside its
images (Roboflow), ``result.json`` with ``images/`` (Label Studio), ``labels.json`` with ``data/`` (FiftyOne).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from vitrail.core.errors import DataError, VitrailError
from vitrail.core.files import read_json
from vitrail.data.formats.layout import PART_NAMES, is_visible_folder, leads_inside, part_of

LISTS = ("images", "annotations", "categories")
"""What a COCO JSON has."""

MAX_OPENED = 20
"""JSON files of a folder that are opened to see what they are; tools that write one for each image write more."""

ANNOTATION_FOLDERS = ("annotations", "annotation")

Found = tuple[Path, str]
"""A file and its part: "train", "val", "test", or "" where nothing says it."""


def annotation_files(root: Path, kind: str) -> list[Found]:
    """One JSON a part, in the order of the parts' names.

    In ``annotations/`` a file counts that has ``kind`` in its name, or is named as a part; where there is none, and in
    other places, every COCO JSON.

    Args:
        root: the data folder.
        kind: preferred files where several are of one part: "instances", "keypoints", "panoptic" or "stuff".

    Raises:
        DataError: several files are of one part, or only some name their part.
    """
    for files in (_named(root, kind), _inside_parts(root), _coco_files(root)):
        if files:
            return _one_a_part(root, kind, files)
    return []


def has_lists(values: Any) -> bool:
    """Whether the contents of a JSON are COCO's."""
    return isinstance(values, dict) and all(isinstance(values.get(key), list) for key in LISTS)


def _named(root: Path, kind: str) -> list[Found]:
    folders = [entry for entry in root.iterdir() if entry.name.lower() in ANNOTATION_FOLDERS and entry.is_dir()]
    every = [file for folder in folders for file in sorted(folder.glob("*.json"))]
    named = [(file, _part(file)) for file in every if _rank(file, kind)]
    return named or [found for folder in folders for found in _coco_files(folder)]


def _rank(file: Path, kind: str) -> int:
    return 2 if kind in file.stem.lower() else 1 if file.stem.lower() in PART_NAMES else 0


def _part(file: Path) -> str:
    return part_of(file.stem, whole_words=False)


def _inside_parts(root: Path) -> list[Found]:
    found = []
    for folder in sorted(root.iterdir()):
        if is_visible_folder(folder) and (part := part_of(folder.name)):
            for place in (folder, *(folder / name for name in ANNOTATION_FOLDERS)):
                found += [(file, part) for file, _ in _coco_files(place)]
    return found


def _coco_files(folder: Path) -> list[Found]:
    files = sorted(file for file in folder.glob("*.json") if not file.name.startswith("."))
    return [(file, _part(file)) for file in files if _is_coco(file)] if len(files) <= MAX_OPENED else []


def _is_coco(file: Path) -> bool:
    try:
        return has_lists(read_json(file))
    except VitrailError:
        return "annotations" in file.stem or "coco" in file.stem  # reading it again says what is wrong with it


def _one_a_part(root: Path, kind: str, files: Sequence[Found]) -> list[Found]:
    chosen: dict[str, Path] = {}
    for part in sorted({part for _, part in files}):
        best = max(_rank(file, kind) for file, other in files if other == part)
        names = [file for file, other in files if other == part and _rank(file, kind) == best]
        if len(names) > 1:
            shown = " and ".join(_titles(root, names[:2]))
            raise DataError(f"{root} has several annotations of one part ({shown}); keep one, or name their parts")
        chosen[part] = names[0]
    if "" in chosen and len(chosen) > 1:
        (odd,) = _titles(root, [chosen.pop("")])
        others = ", ".join(_titles(root, chosen.values()))
        raise DataError(f"{root}: {odd} names no part, but {others} do; put train, val or test into its name")
    return [(file, part) for part, file in chosen.items()]


def _titles(root: Path, files: Iterable[Path]) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files]


class ImageFolder:
    """The folder with the images of one annotation file: of those that may be meant, the first that has the most.

    Attributes:
        folder: the folder.
    """

    def __init__(self, root: Path, file: Path, part: str, entries: Iterable[dict[str, Any]]) -> None:
        self._root = root
        names = [name for entry in entries if isinstance(name := entry.get("file_name"), str)]
        self._bare = Counter(_bare(name) for name in dict.fromkeys(names))
        best = -1
        for folder in _folders(root, file, part):
            count = sum(self._place(folder, name) is not None for name in names)
            if count > best:
                self.folder, best = folder, count
            if count == len(names):
                break

    def find(self, name: str) -> Path | None:
        """The file that the annotations call ``name``; None where it is missing or outside of the data.

        Paths of another machine, and backslashes, are understood: where a path leads nowhere, its last part counts if
        no other image has it.
        """
        path = self._place(self.folder, name)
        return path if path is not None and leads_inside(path, self._root) else None

    def _place(self, folder: Path, name: str) -> Path | None:
        bare = _bare(name)
        names = (name, name.replace("\\", "/"), *((bare,) if bare and self._bare[bare] == 1 else ()))
        paths = (Path(os.path.normpath(folder / one)) for one in names)
        return next((path for path in paths if path.is_relative_to(self._root) and os.path.isfile(path)), None)


def _bare(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


def _folders(root: Path, file: Path, part: str) -> list[Path]:
    """Folders that may have the images of an annotation file, the closest to its name and place first."""
    own = file.stem.rpartition("_")[2]  # instances_train2017 -> train2017
    images = root / "images"
    wanted = [root / own, images / own, root / own / "images"]
    beside = file.parent.parent if file.parent.name.lower() in ANNOTATION_FOLDERS else file.parent
    if beside != root:
        wanted += [beside, beside / "images", beside / "images" / own, beside / "data"]
    for parent in (root, images):
        for entry in sorted(parent.iterdir()) if part and parent.is_dir() else ():
            if part_of(entry.name) == part:
                wanted += [entry, entry / "images"]
    wanted += [images, root / "data", root]
    return [folder for folder in dict.fromkeys(wanted) if folder.is_dir()]
