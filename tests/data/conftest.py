from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
