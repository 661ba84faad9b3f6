"""What a YOLO folder says about itself: the classes by number, and the images of each part.

``data.yaml`` has ``names`` (a list, or a table from numbers), ``nc``, ``path``, and ``train``, ``val``, ``test``:
folders, or text files that list images. Darknet and CVAT write ``obj.data``, which names ``obj.names`` and such text
files. Other tools write ``classes.txt`` alone. Texts are kept as they are written: YAML would read the name ``no`` as a
truth value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from vitrail.core.errors import DataError
from vitrail.core.files import MAX_YAML_BYTES
from vitrail.core.parse import LimitError, compose_yaml
from vitrail.data.formats.csv_rows import has_controls, read_names, read_text
from vitrail.data.formats.layout import PART_NAMES

DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels/classes.txt")
WANTED = "'names' needs a list of the classes, or a table from their numbers"

PLACES = ("", "train/", "train/labels/", "labels/train/", "obj_train_data/")
"""Folders in which tools write the names of classes; they say the same everywhere."""


@dataclass(frozen=True)
class YoloFolder:
    """Description of a folder.

    Attributes:
        file: file that says so, for messages.
        names: number of a class -> its name, ascending.
        parts: "train", "val", "test" -> folders or text files, as the file names them.
        base: ``path`` of the file: where these are, beside the file's own folder.
        num_values: numbers of a line after the class where objects have keypoints, else 0; the first four are the box.
        count: place and text of ``nc``, where it is given.
    """

    file: Path
    names: dict[int, str]
    parts: dict[str, list[str]] = field(default_factory=dict)
    base: str = ""
    num_values: int = 0
    count: tuple[str, str] | None = None


def read_description(root: Path) -> YoloFolder | None:
    """The description of a folder, or None where nothing names the classes.

    Raises:
        DataError: a file that cannot be read, or files that contradict themselves or each other.
    """
    found = _from_yaml(root) or _from_darknet(root)
    for place in PLACES:
        for name in NAME_FILES:
            file = root / f"{place}{name}"
            if file.is_file():
                names = _distinct(file, dict(enumerate(read_names(file))))
                if found is not None and found.names and names != found.names:
                    raise DataError(f"{found.file} and {file} name different classes; keep the one that is right")
                found = replace(found or YoloFolder(file, names), names=names)
    if found is not None and not found.names:
        raise DataError(f"{found.file} has no class names; {WANTED}")
    if found is not None and found.count is not None:
        _check_count(*found.count, found.names)
    return found


def _check_count(where: str, nc: str, names: Mapping[int, str]) -> None:
    """``nc`` is the number of names, or of what they are numbered to."""
    if nc and nc not in {str(len(names)), str(max(names) + 1)}:
        raise DataError(
            f"{where}: nc is {nc:.20}, but there are {len(names)} names of classes (numbers {min(names)} to "
            f"{max(names)}); correct one of them"
        )


def _from_yaml(root: Path) -> YoloFolder | None:
    known = [root / name for name in DESCRIPTIONS]
    others = sorted(file for suffix in ("*.yaml", "*.yml") for file in root.glob(suffix) if file not in known)
    found = [_describe(file, _entries(file)) for file in known if file.is_file()]
    for file in others if not found else ():
        entries: dict[str, yaml.Node] = {}
        with suppress(DataError):  # a YAML file of something else
            entries = _entries(file)
        if "names" in entries:
            found.append(_describe(file, entries))
    for one in found[1:]:
        if (one.names, one.parts) != (found[0].names, found[0].parts):
            raise DataError(f"{found[0].file} and {one.file} differ; keep the one that is right")
    return found[0] if found else None


def _entries(file: Path) -> dict[str, yaml.Node]:
    """The top level of a YAML file."""
    text = read_text(file, "it needs 'names'", MAX_YAML_BYTES)
    try:
        node = compose_yaml(text)
    except LimitError as error:
        raise DataError(f"{file} is refused: {error}; it needs 'names', a list of the classes") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} is not YAML ({reason:.200}); it needs 'names', a list of the classes") from error
    return _table(file, node) if isinstance(node, yaml.MappingNode) else {}


def _table(file: Path, node: yaml.MappingNode) -> dict[str, yaml.Node]:
    """The entries of a table by the texts of their keys.

    Raises:
        DataError: a key occurs twice.
    """
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in found:
                raise DataError(f"{file} line {_line(key)}: the key '{key.value}' occurs twice; keep one")
            found[key.value] = value
    return found


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _describe(file: Path, entries: Mapping[str, yaml.Node]) -> YoloFolder:
    names = _names(file, entries["names"]) if "names" in entries else {}
    parts: dict[str, list[str]] = {}
    for key, node in entries.items():
        part, values = PART_NAMES.get(key.lower()), _texts(node)
        if part and values and parts.setdefault(part, values) != values:
            raise DataError(f"{file} line {_line(node)}: '{key}' is another folder for '{part}'; keep one of them")
    shape = [int(one) for one in _texts(entries.get("kpt_shape")) if re.fullmatch("[0-9]{1,3}", one)]
    nc = entries.get("nc")
    return YoloFolder(
        file,
        names,
        parts,
        base=_text(entries.get("path")),
        num_values=4 + shape[0] * shape[1] if len(shape) == 2 else 0,
        count=(f"{file} line {_line(nc)}", _text(nc)) if nc is not None else None,
    )


def _text(node: yaml.Node | None) -> str:
    """The text of a value; "" where there is none."""
    is_null = node is None or node.tag == "tag:yaml.org,2002:null"
    return node.value.strip() if isinstance(node, yaml.ScalarNode) and not is_null else ""


def _texts(node: yaml.Node | None) -> list[str]:
    """The texts of a value or of a list of values."""
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return [text for one in nodes if (text := _text(one))]


def _names(file: Path, node: yaml.Node | None) -> dict[int, str]:
    """Names by number, from a list (from 0), or a table from numbers.

    Raises:
        DataError: there are none, a key is no number, or a number or a name occurs twice.
    """
    if isinstance(node, yaml.MappingNode):
        pairs = [(key, value, _text(key)) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        pairs = [(value, value, str(number)) for number, value in enumerate(node.value)]
    else:
        raise DataError(f"{file} has no class names; {WANTED}")
    found: dict[int, str] = {}
    for key, value, number in pairs:
        where = f"{file} line {_line(key)}"
        name = value.value.strip() if isinstance(value, yaml.ScalarNode) else ""
        if not re.fullmatch("[0-9]{1,9}", number):
            raise DataError(f"{where}: the key '{number:.80}' in 'names' is no number of a class; {WANTED}")
        if not name or has_controls(name):
            raise DataError(f"{where}: class {number} has no name without control characters; {WANTED}")
        if int(number) in found:
            raise DataError(
                f"{where}: class {int(number)} has two names, '{found[int(number)]}' and '{name}'; keep one"
            )
        found[int(number)] = name
    if not found:
        raise DataError(f"{file} has no class names; {WANTED}")
    return _distinct(file, dict(sorted(found.items())))


def _distinct(file: Path, names: dict[int, str]) -> dict[int, str]:
    """The names.

    Raises:
        DataError: one stands for two classes.
    """
    numbers: dict[str, int] = {}
    for number, name in names.items():
        if numbers.setdefault(name, number) != number:
            raise DataError(f"{file} calls class {numbers[name]} and class {number} '{name}'; rename one")
    return names


def _from_darknet(root: Path) -> YoloFolder | None:
    """``obj.data``: lines ``classes = 2``, ``names = data/obj.names``, ``train = data/train.txt``, ``valid = ...``."""
    file = root / "obj.data"
    if not file.is_file():
        return None
    pairs = [line.partition("=") for line in read_text(file, "one 'key = value' a line").split("\n")]
    values = {key.strip().lower(): value.strip() for key, sign, value in pairs if sign}
    listed = root / Path(values.get("names", "obj.names").replace("\\", "/")).name
    if not listed.is_file():
        raise DataError(f"{file} needs {listed.name} beside it, with one class name a line; export the classes too")
    names = _distinct(listed, dict(enumerate(read_names(listed))))
    if values.get("classes", str(len(names))) != str(len(names)):
        raise DataError(
            f"{file} says classes = {values['classes']:.20}, but {listed.name} has {len(names)}; correct one"
        )
    parts = {PART_NAMES[key]: [value] for key, value in values.items() if key in PART_NAMES and value}
    return YoloFolder(file, names, parts)
