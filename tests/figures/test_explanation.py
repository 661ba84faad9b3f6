from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.explain import Explanation, explain_images
from vitrail.figures.explanation import explanation_figures, write_explanation
from vitrail.models import create_model


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    return explain_images(create_model("vit_nano_patch4", num_classes=3), images, Preprocessing(image_size=(32, 32)))


def test_pictures_and_arrays_are_written(explanation: Explanation, tmp_path: Path) -> None:
    names = {"attention", "distances", "collapse", "filters", "positions", "receptive_fields"}
    assert set(explanation_figures(explanation)) == names
    paths = write_explanation(explanation, tmp_path / "new")
    assert {path.name for path in paths} == {"arrays.npz", *(f"{name}.png" for name in names)}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {path.name for path in paths}
    with np.load(paths[0]) as arrays:
        np.testing.assert_array_equal(arrays["distances"], explanation.distances)
    with pytest.raises(ConfigError, match="png, svg"):
        write_explanation(explanation, tmp_path, "gif")  # type: ignore[arg-type]


def test_a_model_without_attention_has_fewer_pictures(explanation: Explanation) -> None:
    found = replace(explanation, distances=None, last_attention=None, filters=None, position_similarity=None)
    assert set(explanation_figures(found)) == {"collapse", "receptive_fields"}
