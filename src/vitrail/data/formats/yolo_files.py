"""Which images a YOLO folder has, of which part, and which text file has the labels of each.

A label file has the path of its image, with ``labels`` for ``images`` and ``.txt`` for the suffix; Darknet's lie beside
their images. Where a path leads to no label file, the bare name counts if it is unique on both sides.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vitrail.core.errors import DataError
from vitrail.data.check.problems import Problems
from vitrail.data.formats.csv_rows import read_lines
from vitrail.data.formats.layout import image_files, is_visible_folder, leads_inside, part_of
from vitrail.data.formats.yolo_names import NAME_FILES, YoloFolder
from vitrail.data.pixels.decode import IMAGE_SUFFIXES

OTHER_TEXTS = frozenset({"notes.txt", "readme.txt", "train.txt", "val.txt", "valid.txt", "test.txt"})
"""Text files beside labels that are none."""


@dataclass(frozen=True)
class ImageGroup:
    """Images of one folder, or of one list.

    Attributes:
        title: folder or list in the data folder, for messages.
        part: "train", "val", "test", or "" where nothing says it.
        images: paths, ascending.
        folder: folder of the images; None for a list.
    """

    title: str
    part: str
    images: list[Path]
    folder: Path | None


def image_groups(root: Path, described: YoloFolder, problems: Problems) -> list[ImageGroup]:
    """The images of every part, each once, as the description says, or else as folders are called.

    Raises:
        DataError: a folder or list for training or validation is missing or empty, or an image is in two parts.
    """
    entries = [(part, text) for part, texts in described.parts.items() for text in texts]
    named = [_group(root, described, part, text, problems) for part, text in entries]
    known = {image for group in named for image in group.images}
    found = [group for group in _folders(root) if group.part not in described.parts]
    if named:  # what lies above or below a named folder is that folder's
        found = [group for group in found if group.part and known.isdisjoint(group.images)]
    parts: dict[Path, str] = {}
    groups = []
    for group in (*named, *found):
        images = [image for image in group.images if image not in parts]
        twice = next((image for image in group.images if parts.get(image, group.part) != group.part), None)
        if twice is not None:
            raise DataError(
                f"{described.file} has {_title(root, twice)} in the parts {parts[twice]} and {group.part}; give each "
                f"part its own images, or name no validation part to have one cut"
            )
        parts |= dict.fromkeys(images, group.part)
        groups.append(replace(group, images=images))
        if not group.images and group.part == "test":
            problems.remark(f"There are no test images: {described.file.name} or a folder names {group.title}")
        elif not group.images and group.part:
            raise DataError(
                f"{root} has no images for '{group.part}' in {group.title}, which {described.file.name} or its own "
                f"name says is that part; give the path from {root}, or remove it"
            )
    return groups


def _group(root: Path, described: YoloFolder, part: str, text: str, problems: Problems) -> ImageGroup:
    """What one entry of the description names; without images where that is missing."""
    path = _locate(root, [root / described.base, root], text)
    if path is None:
        return ImageGroup(f"'{text:.200}'", part, [], None)
    title = path.relative_to(root).as_posix()
    if path.is_dir():
        return ImageGroup(title, part, image_files(path, root), path)
    images = []
    for line in read_lines(path, "one image a line"):
        image = _locate(root, [root / described.base, root, path.parent, root / "images"], line)
        if image is None or image.is_dir():
            problems.add(f"{title} '{line:.200}'", "there is no such image in the data folder")
        else:
            images.append(image)
    return ImageGroup(title, part, sorted(set(images)), None)


def _locate(root: Path, bases: Iterable[Path], text: str) -> Path | None:
    """The file or folder that a path of any machine means: below a base, or with folders at its beginning left out that
    are not here. The last part alone says too little, unless it is a list or the path has no more."""
    words = [word for word in PurePosixPath(text.replace("\\", "/")).parts if word not in ("..", ".")]
    whole = [base / text for base in bases] + [base / text.replace("\\", "/") for base in bases]
    least = 1 if text.lower().endswith(".txt") else 2
    ends = [root.joinpath(*words[start:]) for start in range(max(len(words) - least, 0) + 1) if words]
    for path in (*whole, *ends):
        try:
            inside = Path(os.path.normpath(path))
            if inside.is_relative_to(root) and (leads_inside(inside, root) or inside.is_dir()):
                return inside
        except (OSError, ValueError):  # names that no file can have
            continue
    return None


def _folders(root: Path) -> list[ImageGroup]:
    """Folders called as parts, ``images/train`` or ``train/images``; else ``images``, else images beside texts."""
    found: list[tuple[str, Path]] = []
    for parent in (root / "images", root):
        for folder in sorted(filter(is_visible_folder, parent.iterdir())) if parent.is_dir() else ():
            part, inner = part_of(folder.name), folder / "images"
            if part and (parent != root or inner.is_dir() or _has_labels_beside(folder)):
                found.append((part, inner if inner.is_dir() else folder))
    if not found:
        flat = root / "images"
        found = [("", flat if flat.is_dir() else root)] if flat.is_dir() or _has_labels_beside(root) else []
    return [
        ImageGroup(folder.relative_to(root).as_posix(), part, image_files(folder, root), folder)
        for part, folder in found
    ]


def _has_labels_beside(folder: Path) -> bool:
    images = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return any(path.with_suffix(".txt").is_file() for path in images)


def pair_labels(root: Path, groups: Sequence[ImageGroup], problems: Problems) -> dict[Path, Path | None]:
    """Image -> its label file, or None where it has none.

    Images that want the same label file, and label files without an image, are added to ``problems``.
    """
    pairs: dict[Path, Path | None] = {}
    for group in groups:
        pairs |= {image: next(filter(os.path.isfile, _places(root, image)), None) for image in group.images}
    homes = [_label_files(root, group) for group in groups]
    free = set[Path]().union(*homes) - set(pairs.values())
    for group, home in zip(groups, homes, strict=True):
        files = defaultdict(list)
        for file in free & home:
            files[file.stem].append(file)
        stems = Counter(image.stem for image in group.images)
        for image in group.images:
            if pairs[image] is None and stems[image.stem] == 1 and len(files[image.stem]) == 1:
                pairs[image] = files[image.stem][0]
                free.remove(files[image.stem][0])
    wanted = defaultdict(list)
    for image, own in pairs.items():
        if own is not None:
            wanted[own].append(image)
    for file, images in wanted.items():
        for image in images if len(images) > 1 else ():
            others = ", ".join(_title(root, other) for other in images if other != image)
            problems.add(_title(root, image), f"wants the label file {_title(root, file)}, as does {others}")
    for file in sorted(free):
        problems.add(_title(root, file), "there is no image for these labels")
    return pairs


def _places(root: Path, image: Path) -> list[Path]:
    """Where the labels of an image may be: for every folder ``images`` of its path, from the last."""
    parts = image.relative_to(root).parts
    at = [i for i in reversed(range(len(parts) - 1)) if parts[i].lower() == "images"]
    files = [root.joinpath(*parts[:i], name, *parts[i + 1 :]) for i in at for name in ("labels", "Labels")]
    return [file.with_suffix(".txt") for file in (*files, image)]


def _label_files(root: Path, group: ImageGroup) -> set[Path]:
    """The label files that belong to a folder of images."""
    if group.folder is None:
        return set()
    folder = _places(root, group.folder / "x")[0].parent
    texts = folder.rglob("*.txt") if folder != group.folder and folder.is_dir() else ()
    names = {Path(name).name for name in NAME_FILES} | OTHER_TEXTS
    return {file for file in texts if file.name.lower() not in names and not file.name.startswith(".")}


def _title(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
