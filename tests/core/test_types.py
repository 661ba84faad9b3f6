"""The small types that cross package borders."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, strategies as st

from vitrail.core.errors import ConfigError
from vitrail.core.types import Batch, Preprocessing, as_image_size


@pytest.mark.parametrize("size", [0, -1, (1, 2, 3), (224,), (10, 0), "224", 1.5, (1.5, 2)])
def test_nonsense_sizes_are_refused(size: object) -> None:
    with pytest.raises(ConfigError, match="image_size="):
        as_image_size(size)  # type: ignore[arg-type]


def test_a_number_means_a_square() -> None:
    assert as_image_size(224) == (224, 224)
    assert as_image_size([256, 192]) == (256, 192)


@given(value=st.integers(0, 255), mean=st.floats(0, 1), std=st.floats(0.1, 1))
def test_normalisation_is_the_written_formula(value: int, mean: float, std: float) -> None:
    preprocessing = Preprocessing(mean=(mean,) * 3, std=(std,) * 3)
    normalised = preprocessing.normalize(torch.full((2, 3, 1, 1), value, dtype=torch.uint8))
    torch.testing.assert_close(normalised, torch.full((2, 3, 1, 1), (value / 255 - mean) / std))


def test_channels_have_their_own_mean() -> None:
    preprocessing = Preprocessing(mean=(0.0, 0.5, 1.0), std=(1.0, 1.0, 1.0))
    assert preprocessing.normalize(torch.zeros(3, 1, 1, dtype=torch.uint8)).flatten().tolist() == [0.0, -0.5, -1.0]


def test_preprocessing_survives_json() -> None:
    preprocessing = Preprocessing(image_size=(48, 32), crop_fraction=1.0, interpolation="bilinear")
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


def test_a_batch_moves_as_one() -> None:
    batch = Batch(images=torch.zeros(1, 3, 2, 2), targets=torch.zeros(1, dtype=torch.int64)).to("meta")
    assert batch.images.device.type == batch.targets.device.type == "meta"
