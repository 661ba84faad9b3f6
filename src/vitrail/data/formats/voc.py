"""Boxes in Pascal VOC's form: an XML file an image, as the challenge, LabelImg, CVAT and Roboflow write it.

An image and its XML file have the same path, but for folders such as ``JPEGImages`` and ``Annotations``. The parts are
those of ``ImageSets/Main/train.txt``, ``val.txt`` and ``test.txt``, which list images, else the folders called so.
Corners of boxes are taken as they are, from 0, as LabelImg, CVAT and Roboflow write them. The challenge's own files,
whose ``<source>`` says ``The VOC2007 Database`` or another year, count pixels from 1 and include the last one: there 1
is taken from left and top, and a remark says so, unless a box of such a file begins at 0. Objects marked ``difficult``
are neither learnt nor measured, as in the challenge.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from vitrail.core.errors import DataError
from vitrail.core.types import ImageSize
from vitrail.data.check.problems import Problems
from vitrail.data.formats.coco import checked_box
from vitrail.data.formats.csv_rows import has_controls, read_lines, read_text
from vitrail.data.formats.layout import PART_NAMES, image_files, part_of
from vitrail.data.pixels.decode import image_size_of
from vitrail.data.records import Box, BoxedImage

FOLDERS = frozenset({"annotations", "annotation", "xml", "xmls", "labels", "images", "image", "jpegimages", "img"})
"""Folders that make no difference between the path of an image and that of its file."""

LIST_FOLDERS = ("ImageSets/Main", "ImageSets")

CHALLENGE = re.compile(r"The VOC\d{4} Database")
"""Source of files that count pixels from 1."""

MAX_NAME = 255
"""Letters of the longest name that a file can have."""

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocObject:
    """One object of a file.

    Attributes:
        corners: left, top, right, bottom; NaN where the file has no number.
        difficult: whether it is neither learnt nor measured.
    """

    name: str
    corners: tuple[float, ...]
    difficult: bool


@dataclass(frozen=True)
class VocFile:
    """One file; the defaults are those of an image without a file.

    Attributes:
        title: path in the data folder, for messages.
        image: name of the image file, "" where it is not given.
        size: height and width of the image, NaN where they are not given.
        challenge: whether its source is the challenge's database.
    """

    title: str = ""
    image: str = ""
    size: tuple[float, float] = (math.nan, math.nan)
    objects: tuple[VocObject, ...] = ()
    challenge: bool = False


def is_voc(root: Path) -> bool:
    """Whether a folder has such files."""
    file = next(iter(_xml_files(root)), None)
    if file is None:
        return False
    try:
        return _parse(file).tag == "annotation"
    except DataError:
        return True  # reading it again says what is wrong with it


def read_voc(root: Path, problems: Problems) -> tuple[tuple[str, ...], list[BoxedImage]]:
    """Names of the classes, in the order of letters, and images by path.

    Args:
        root: the data folder.
        problems: takes everything that is wrong.

    Raises:
        DataError: an image is listed for two parts.
    """
    images = image_files(root, root)
    files = _files_of_images(root, images, problems)
    parts = _listed_parts(root, images, problems)
    found: dict[Path, VocFile] = {}
    for image in images:
        try:
            if parts is None or image in parts:
                found[image] = _read(root, files[image]) if image in files else VocFile()
        except DataError as error:
            problems.add(_title(root, image), str(error))
    found = _from_zero(found, problems)
    missing = sum(not file.title for file in found.values())
    if missing:
        problems.remark(f"Images without an XML file, which count as images without objects: {missing}")
    names = sorted({one.name for file in found.values() for one in file.objects})
    index = {name: label for label, name in enumerate(names)}
    records = []
    for image, file in found.items():
        part = _part_of(root, image) if parts is None else parts[image]
        records.append(_record(root, image, part, file, index, problems))
    return tuple(names), records


def _from_zero(found: dict[Path, VocFile], problems: Problems) -> dict[Path, VocFile]:
    """The files, with the corners of the challenge's own ones counted from 0. Programs that borrow its name count from
    0 themselves, which shows where a box begins there."""
    own = [file for file in found.values() if file.challenge]
    if not own or any(corner < 1 for file in own for one in file.objects for corner in one.corners[:2]):
        return found
    problems.remark(
        f"Pixels are counted from 1 in files of the challenge's database ({len(own)}): 1 was taken from left and top"
    )

    def moved(one: VocObject) -> VocObject:
        left, top, right, bottom = one.corners
        return replace(one, corners=(left - 1, top - 1, right, bottom))

    return {
        image: replace(file, objects=tuple(map(moved, file.objects))) if file.challenge else file
        for image, file in found.items()
    }


def _record(root: Path, image: Path, part: str, file: VocFile, index: dict[str, int], problems: Problems) -> BoxedImage:
    size = image_size_of(image)
    boxes: list[Box] = []
    kept: list[VocObject] = []
    other = image.with_name(file.image) if file.image else image
    if other.name != image.name and other.is_file():
        problems.add(
            _title(root, image), f"{file.title} is of this image by its name, and of {file.image} by its contents"
        )
    elif size is not None and all(side > 0 for side in file.size) and size != file.size:
        height, width = file.size
        reason = f"{file.title} says {width:g}x{height:g} pixels, but the image has {size[1]}x{size[0]}"
        problems.add(_title(root, image), reason)
    elif size is not None:
        for number, one in enumerate(file.objects, start=1):
            box = _box(one, size, f"{file.title} object {number}", problems)
            if box is not None:
                boxes.append(box)
                kept.append(one)
    return BoxedImage(
        name=_title(root, image),
        source=image,
        part=part,
        boxes=tuple(boxes),
        labels=tuple(index[one.name] for one in kept),
        crowd=tuple(one.difficult for one in kept),
    )


def _box(one: VocObject, size: ImageSize, where: str, problems: Problems) -> Box | None:
    if not all(map(math.isfinite, one.corners)):
        problems.add(where, f"its bndbox has no numbers {', '.join(CORNERS)}")
        return None
    left, top, right, bottom = one.corners
    return checked_box([left, top, right - left, bottom - top], size, where, problems)


def _xml_files(root: Path) -> list[Path]:
    return sorted(
        file for file in root.rglob("*.xml") if not any(p.startswith(".") for p in file.relative_to(root).parts)
    )


def _key(root: Path, path: Path) -> tuple[str, ...]:
    """The path of an image or its file, as far as both have it."""
    inner = path.relative_to(root).with_suffix("").parts
    return tuple(word for word in inner[:-1] if word.lower() not in FOLDERS) + inner[-1:]


def _files_of_images(root: Path, images: list[Path], problems: Problems) -> dict[Path, Path]:
    """Image -> its file. Files without an image, and images that share one, are added to ``problems``."""
    wanted = defaultdict(list)
    for image in images:
        wanted[_key(root, image)].append(image)
    files: dict[Path, Path] = {}
    for file in _xml_files(root):
        found = wanted.get(_key(root, file), [])
        if not found:
            problems.add(_title(root, file), "there is no image for this file")
        for image in found:
            if len(found) > 1 or image in files:
                both = [_title(root, one) for one in (*found, *([files[image]] if image in files else []))]
                problems.add(_title(root, image), f"{_title(root, file)} is not its own alone ({', '.join(both)})")
            files[image] = file
    return files


def _listed_parts(root: Path, images: list[Path], problems: Problems) -> dict[Path, str] | None:
    """Image -> part, from lists of names; None where there are none.

    Raises:
        DataError: an image is listed for two parts, or a list is empty.
    """
    lists = [file for folder in LIST_FOLDERS for file in sorted((root / folder).glob("*.txt"))]
    lists = [file for file in lists if file.stem.lower() in PART_NAMES] or [f for f in lists if f.stem == "trainval"]
    if not lists:
        return None
    stems = defaultdict(list)
    for image in images:
        stems[image.stem].append(image)
    parts: dict[Path, str] = {}
    for file in lists:
        part = PART_NAMES.get(file.stem.lower(), "")
        lines = read_lines(file, "one image a line")
        if not lines:
            raise DataError(f"{file} lists no images; write it again, or remove it")
        for line in lines:
            found = _meant(stems, line) or _meant(stems, line.rsplit(maxsplit=1)[0])
            if len(found) != 1:
                reason = "several images are called so" if found else "there is no such image"
                problems.add(f"{_title(root, file)} '{line:.200}'", reason)
            for image in found if len(found) == 1 else ():
                if parts.setdefault(image, part) != part:
                    raise DataError(f"{file} lists {_title(root, image)}, which is in the part {parts[image]} too")
    return parts


def _meant(stems: Mapping[str, list[Path]], name: str) -> list[Path]:
    """Images of a name, with or without folders before it and a suffix after it."""
    path = PurePosixPath(name.replace("\\", "/"))
    for words in (path.parts, path.with_suffix("").parts) if path.name else ():
        found = [image for image in stems.get(words[-1], []) if image.with_suffix("").parts[-len(words) :] == words]
        if found:
            return found
    return []


def _part_of(root: Path, image: Path) -> str:
    words = map(part_of, image.relative_to(root).parts[:-1])
    return next(filter(None, words), "")


def _parse(file: Path) -> ElementTree.Element:
    text = read_text(file, "in Pascal VOC's form")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{file} defines entities, which may grow without bounds; write it without them")
    try:
        return ElementTree.fromstring(text.partition("?>")[2] if text.startswith("<?xml") else text)
    except ElementTree.ParseError as error:
        raise DataError(f"{file} is no XML ({error}); write it again") from error


def _read(root: Path, file: Path) -> VocFile:
    """The contents of a file.

    Raises:
        DataError: no XML in this form.
    """
    top = _parse(file)
    if top.tag != "annotation":
        raise DataError(f"{file} is no annotation in Pascal VOC's form: its first element is <{top.tag:.40}>")
    objects = []
    for one in top.findall("object"):
        corners = tuple(_number(one.findtext(f"bndbox/{corner}")) for corner in CORNERS)
        objects.append(VocObject(_text(one, "name"), corners, _text(one, "difficult") == "1"))
        if not objects[-1].name or has_controls(objects[-1].name):
            raise DataError(f"{file} has an object without a name, or with control characters in it; give it one")
    image = PurePosixPath(_text(top, "filename").replace("\\", "/")).name
    size = (_number(top.findtext("size/height")), _number(top.findtext("size/width")))
    usable = len(image) < MAX_NAME and "\0" not in image
    challenge = CHALLENGE.fullmatch(_text(top, "source/database")) is not None
    return VocFile(_title(root, file), image if usable else "", size, tuple(objects), challenge)


def _text(element: ElementTree.Element, name: str) -> str:
    return (element.findtext(name) or "").strip()


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _title(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
