"""Files of labelling tools that are not read, so that an error can name them instead of what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitrail.core.errors import VitrailError
from vitrail.core.files import read_json

AS_COCO = "export it as COCO JSON"

PATTERNS = {
    "*/ann/*.json": f"annotations of Supervisely; {AS_COCO}",
    "ann/*.json": f"annotations of Supervisely; {AS_COCO}",
    "annotations.xml": f"annotations in CVAT's own form; {AS_COCO} or YOLO 1.1",
    "[Aa]nnotations/*.xml": f"annotations in Pascal VOC's form, which have boxes only; {AS_COCO}",
    "*.xml": f"annotations in Pascal VOC's form, which have boxes only; {AS_COCO}",
    "*/*.xml": f"annotations in Pascal VOC's form, which have boxes only; {AS_COCO}",
    "_annotations.csv": f"annotations of Roboflow as a table; {AS_COCO}",
    "*/_annotations.csv": f"annotations of Roboflow as a table; {AS_COCO}",
    "metadata.jsonl": f"a table of Hugging Face's datasets; {AS_COCO}",
    "*/metadata.jsonl": f"a table of Hugging Face's datasets; {AS_COCO}",
    "*.tfrecord": f"annotations of TensorFlow; {AS_COCO}",
    "*/*.tfrecord": f"annotations of TensorFlow; {AS_COCO}",
}
"""Where files of a tool are -> what they are, and what to do."""

JSON_PLACES = ("*.json", "annotations/*.json", "*/*.json")

KEYS = {
    "_via_img_metadata": f"is a project of the VGG annotator; {AS_COCO}",
    "imagePath": "is a file of LabelMe; convert the files to COCO JSON with labelme's labelme2coco.py",
    "shapes": "is a file of LabelMe; convert the files to COCO JSON with labelme's labelme2coco.py",
}
"""Key of a JSON -> what the file is, and what to do."""


def describe_found(root: Path) -> str:
    """What annotations a folder has instead of those that are read, for the middle of an error; "" where it has none.

    One file of each kind is looked at.
    """
    for pattern, meaning in PATTERNS.items():
        if (file := next(iter(sorted(root.glob(pattern))), None)) is not None:
            return f"found {file.relative_to(root).as_posix()}: {meaning}; "
    for pattern in JSON_PLACES:
        if (file := next(iter(sorted(root.glob(pattern))), None)) is not None:
            return f"found {file.relative_to(root).as_posix()}, which {_what_json_lacks(file)}; "
    return ""


def _what_json_lacks(file: Path) -> str:
    try:
        values: Any = read_json(file)
    except VitrailError:
        return "cannot be read as JSON"
    if isinstance(values, list):
        tasks = values and isinstance(values[0], dict) and values[0].keys() & {"data", "annotations"}
        return f"is Label Studio's own JSON; {AS_COCO} or YOLO" if tasks else "is a list and no COCO JSON"
    for key, meaning in KEYS.items():
        if isinstance(values, dict) and key in values:
            return meaning
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(_entry(values, key), list)]
    return f"is no COCO JSON: it lacks the lists {', '.join(missing)}" if missing else "is one of many COCO files"


def _entry(values: Any, key: str) -> Any:
    return values.get(key) if isinstance(values, dict) else None
