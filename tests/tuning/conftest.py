"""Images of two classes, a model that trains on them in a moment, and trainings that are only pretended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pretended_training import Pretended

from vitrail.data import DataConfig
from vitrail.models import edgevit
from vitrail.runs.run import Run
from vitrail.training import TrainConfig
from vitrail.tuning import search


@pytest.fixture(scope="package")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve reddish and twelve greenish images, half of them for training, and a test part."""
    folder, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 4), ("test", 2)):
        for channel, name in enumerate(("red", "green")):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    return folder


@pytest.fixture(scope="package")
def config(photos: Path) -> Iterator[TrainConfig]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            edgevit.VARIANTS,
            "edgevit_test",
            edgevit.EdgeViTConfig(
                embed_dims=(8, 16), depths=(1, 1), head_dim=8, sr_ratios=(2, 1), strides=(4, 2), image_size=(16, 16)
            ),
        )
        yield TrainConfig(
            model="edgevit_test",
            data=DataConfig(path=str(photos)),
            epochs=2,
            batch_size=4,
            ema_decay=0.0,
            num_workers=0,
            loggers=("csv",),
        )


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    found = Pretended()
    monkeypatch.setattr(search, "train", found)

    def evaluated(run: Run, **_: Any) -> Any:
        return {"reports": {search.WEIGHTS: {"top1": 0.25}}}

    monkeypatch.setattr(search, "evaluate_run", evaluated)
    return found
