from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from written_data import scene

WriteScenes = Callable[[Mapping[str, int]], Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def write_scenes(tmp_path: Path) -> WriteScenes:
    """``write_scenes({"train/cat": 3})`` makes a folder with so many different pictures each."""

    def write(counts: Mapping[str, int]) -> Path:
        seed = 0
        for folder, count in counts.items():
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                scene(seed).save(tmp_path / "data" / folder / f"{number}.png")
                seed += 1
        return tmp_path / "data"

    return write
