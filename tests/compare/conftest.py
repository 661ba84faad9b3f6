"""Two classes of noise, and a comparison of two models that train on it in seconds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

TINY = {"embed_dims": [8, 16], "depths": [1, 1], "head_dim": 8, "sr_ratios": [2, 1], "strides": [4, 2]}


@pytest.fixture(scope="package")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green")):
        (folder / name).mkdir()
        for i in range(12):
            pixels = generator.integers(0, 160, (16, 16, 3), dtype=np.uint8)
            pixels[..., channel] += 40
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture
def values(tiny_values: dict[str, Any]) -> dict[str, Any]:
    """For tests that change it."""
    return copy.deepcopy(tiny_values)


@pytest.fixture(scope="package")
def tiny_values(images: Path) -> dict[str, Any]:
    return {
        "question": "Is wider <better> & 100 % so?",
        "cells": [
            {"name": "narrow_1", "model": "edgevit_nano_stride2", "fields": TINY},
            {"name": "wide", "model": "edgevit_nano_stride2", "fields": TINY | {"mlp_ratio": 6.0}},
        ],
        "seeds": [0, 1],
        "collapse": True,
        "robustness": True,
        "training": {
            "data": {"path": str(images), "val_fraction": 0.5},
            "image_size": 16,
            "epochs": 1,
            "batch_size": 6,
            "num_workers": 0,
            "ema_decay": 0.0,
        },
    }


@pytest.fixture
def plan_file(values: dict[str, Any], tmp_path: Path) -> Path:
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file
