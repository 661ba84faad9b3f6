"""A data set and a configuration that train in a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pretended_run import bare_run, full_run  # noqa: F401 (fixtures)
from tiny_onnx import onnx_file, write_onnx_fixture  # noqa: F401 (fixtures)

from vitrail.data import AugmentConfig, DataConfig
from vitrail.models import edgevit
from vitrail.training import TrainConfig


@pytest.fixture(scope="package")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, reddish and greenish noise, 16 images of 16 x 16 pixels each."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green")):
        (folder / name).mkdir()
        for i in range(16):
            pixels = generator.integers(0, 160, (16, 16, 3), dtype=np.uint8)
            pixels[..., channel] += 80
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="package")
def config(images: Path) -> Iterator[TrainConfig]:
    """Three epochs of three steps of a model with two tiny stages."""
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
            data=DataConfig(path=str(images), val_fraction=0.25),
            augment=AugmentConfig(mixup_alpha=0.2),
            epochs=3,
            batch_size=8,
            learning_rate=2e-2,
            drop_path_rate=0.2,
            ema_decay=0.9,
            num_workers=0,
        )
