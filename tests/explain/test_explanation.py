"""The whole explanation of a small model: arrays, pictures, command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vitrail.cli.main import main
from vitrail.core.errors import DataError
from vitrail.core.types import Preprocessing
from vitrail.explain import (
    Explanation,
    attended,
    attention_rollout,
    capture_attention,
    explain_images,
)
from vitrail.layers import Places, cell_centres
from vitrail.models import create_model
from vitrail.runs.run import Run
from vitrail.tasks import ClassificationTask

SMALL = Preprocessing(image_size=(32, 32))
CLASSES = ("a", "b", "c")


def pixels(count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)


def explained(name: str, count: int = 3, batch_size: int = 8) -> Explanation:
    torch.manual_seed(0)
    return explain_images(create_model(name, num_classes=3), pixels(count), SMALL, batch_size=batch_size)


def test_a_vit_has_everything_but_mixing() -> None:
    found = explained("vit_nano_patch4")
    assert list(found.skipped) == ["own_distances", "class_activation"]
    shapes = {name: array.shape for name, array in found.arrays().items()}
    assert shapes["rollout"] == shapes["last_attention"] == shapes["rollout_without_identity"] == (3, 8, 8)
    assert shapes["distances"] == (6, 4)
    assert shapes["filters"] == (28, 4, 4, 3)
    assert shapes["position_similarity"] == (8, 8, 8, 8)
    assert shapes["receptive_fields"] == (4, 32, 32)
    assert (shapes["token_similarity"], shapes["level_similarity"]) == ((6,), (5,))


def test_rollout_is_the_class_tokens_row_on_the_grid() -> None:
    torch.manual_seed(0)
    model = create_model("vit_nano_patch4", num_classes=3).eval()
    images = pixels(2)
    found = explain_images(model, images, SMALL)
    with capture_attention(model) as maps:
        model(SMALL.normalize(images))
    row = attention_rollout([entry.probabilities[:, 0] for entry in maps])[:, 0, 1:]
    expected = (row / row.sum(-1, keepdim=True)).unflatten(1, (8, 8))
    assert found.rollout is not None
    np.testing.assert_allclose(found.rollout, expected.detach().numpy(), rtol=1e-4)


def test_batches_change_nothing() -> None:
    whole, parts = explained("vit_nano_patch4"), explained("vit_nano_patch4", batch_size=2)
    for name, array in whole.arrays().items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(parts.arrays()[name], array, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_pyramid_says_why_it_has_no_rollout() -> None:
    found = explained("edgevit_nano_stride2")
    assert found.rollout is None
    assert "ViT and ReViT" in found.skipped["rollout"]
    assert found.last_attention is not None
    assert found.class_activation is not None
    assert found.class_activation.shape[0] == 3
    assert (found.class_activation >= 0).all()
    assert found.distances is not None
    assert np.isnan(found.level_similarity).any()  # levels of different sizes are not compared
    assert "rollout" not in found.arrays()


def test_residual_attention_has_distances_before_mixing() -> None:
    found = explained("revit_nano_patch4")
    assert found.own_distances is not None
    assert found.distances is not None
    np.testing.assert_allclose(found.own_distances[0], found.distances[0], rtol=1e-5)
    assert not np.allclose(found.own_distances[1:], found.distances[1:], rtol=1e-5)


def test_attended_puts_groups_back_on_the_map() -> None:
    grid = cell_centres((2, 2), (2, 2))
    columns = grid.transpose(0, 1)  # a group is a column, top to bottom
    probabilities = torch.tensor([[[0.75, 0.25]] * 2, [[0.5, 0.5]] * 2])[None, :, None]
    picture = attended(probabilities, Places("column", columns, columns))
    torch.testing.assert_close(picture, torch.tensor([[[0.375, 0.25], [0.125, 0.25]]]))


def test_the_model_is_left_as_it_was() -> None:
    task = ClassificationTask(create_model("vit_nano_patch4", num_classes=3), CLASSES).train()
    explain_images(task, pixels(1), SMALL)
    assert task.backbone.training
    assert all(parameter.grad is None for parameter in task.parameters())


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 32, 32), pixels()[:0], pixels()[0], pixels()[:, :1]])
def test_other_images_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"needed: torch\.uint8"):
        explain_images(create_model("vit_nano_patch4", num_classes=3), images, SMALL)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    fields = {"num_classes": 3, "image_size": [32, 32]}
    made = Run(tmp_path / "run")
    made.folder.mkdir()
    task = ClassificationTask(create_model("edgevit_nano_stride2", num_classes=3, image_size=(32, 32)), CLASSES)
    save_file(task.state_dict(), made.weights)
    made.update(
        model={"name": "edgevit_nano_stride2", "fields": fields},
        task="classification",
        classes=list(CLASSES),
        preprocessing=SMALL.to_dict(),
    )
    return made


def test_the_verb_writes_into_the_run_or_elsewhere(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "photos" / "one.png"
    image.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(image)
    assert main(["explain", str(run.folder), str(image.parent), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert sorted(printed["files"]) == sorted(map(str, run.explanation.iterdir()))
    assert "rollout" in printed["skipped"]
    out = tmp_path / "elsewhere"
    assert main(["explain", str(run.folder), str(image), "--out", str(out), "--format", "svg"]) == 0
    assert (out / "collapse.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert "No rollout: rollout needs" in capsys.readouterr().out
    assert main(["explain", str(run.folder)]) == 2
    assert "no images given" in capsys.readouterr().err
