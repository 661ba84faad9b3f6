"""Boxes that Vitrail has read and checked, as a folder that ultralytics trains on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import yaml

from vitrail.core.errors import ConfigError
from vitrail.core.files import write_text
from vitrail.data import BoxSet, DataConfig, image_size_of, load_boxes


def write_dataset(config: DataConfig, folder: Path) -> Path:
    """Copy images, and write their boxes in YOLO's format.

    Crowds are left out, since YOLO's format has none. The images have their orientation (EXIF) applied by both
    programs.

    Args:
        config: COCO JSON, YOLO text or Pascal VOC's XML, and the treatment of wrong annotations.
        folder: new or empty folder.

    Returns:
        the ``data.yaml`` to train with.

    Raises:
        DataError: as :func:`vitrail.data.load_boxes`.
        ConfigError: the folder has something in it.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; give a new folder")
    data = load_boxes(config)
    parts = {"train": data.train, "val": data.val} | ({"test": data.test} if data.test is not None else {})
    for part, samples in parts.items():
        _write_part(samples, folder, part)
    entries = {"path": str(folder.resolve())} | {part: f"images/{part}" for part in parts}
    path = folder / "data.yaml"
    write_text(path, yaml.safe_dump(entries | {"names": dict(enumerate(data.classes))}, sort_keys=False))
    return path


def _write_part(samples: BoxSet, folder: Path, part: str) -> None:
    for record in samples.records:
        if isinstance(record.source, bytes):
            raise ConfigError("the images are in memory; YOLO's form needs files")
        flat = "_".join(PurePosixPath(record.name).parts)  # one folder a part, and no two files of one name
        image = folder / "images" / part / flat
        image.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record.source, image)
        height, width = image_size_of(record.source) or (1, 1)
        lines = [
            _line(label, box, width, height)
            for label, box, crowd in zip(record.labels, record.boxes, record.crowd, strict=True)
            if not crowd
        ]
        write_text((folder / "labels" / part / flat).with_suffix(".txt"), "".join(lines))


def _line(label: int, box: Sequence[float], width: int, height: int) -> str:
    left, top, right, bottom = box
    centre = ((left + right) / 2 / width, (top + bottom) / 2 / height)
    sides = ((right - left) / width, (bottom - top) / height)
    return " ".join([str(label), *(f"{value:.6f}" for value in centre + sides)]) + "\n"
