from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from written_data import write_plain_images

WriteImages = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(seed: int, width: int = 20, height: int = 16) -> Image.Image:
    """A smooth random picture, so that JPEG changes it little."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def write_images(tmp_path: Path) -> WriteImages:
    """``write_images({"cat": 3, "train/dog": 2})`` makes a folder with so many pictures each."""

    def write(counts: dict[str, int], suffix: str = ".jpg", root: Path | None = None) -> Path:
        root = root or tmp_path / "photos"
        root.mkdir(exist_ok=True)
        seed = 0
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                picture(seed, 16 + seed % 5, 12 + seed % 7).save(root / folder / f"{number:03d}{suffix}")
                seed += 1
        return root

    return write


WriteCoco = Callable[..., Path]


@pytest.fixture
def write_coco(tmp_path: Path) -> WriteCoco:
    """``write_coco({"annotations/train.json": values}, {"train": ["0.png"]})`` writes files and images."""

    def write(files: dict[str, Any], images: dict[str, Iterable[str]]) -> Path:
        root = tmp_path / "coco"
        for name, values in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(json.dumps(values))
        for folder, names in images.items():
            write_plain_images(root / folder, names)
        return root

    return write


@pytest.fixture
def write_yolo(tmp_path: Path) -> WriteCoco:
    """``write_yolo({"data.yaml": ..., "labels/a.txt": ...}, ["images/a.png"])`` writes texts and images."""

    def write(texts: dict[str, str | bytes], images: Iterable[str]) -> Path:
        root = tmp_path / "yolo"
        for name, text in texts.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
        write_plain_images(root, images)
        return root

    return write
