from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitrail.core.errors import CheckpointError, ConfigError, RunError, UnknownNameError
from vitrail.runs.description import Description
from vitrail.runs.load import build_task, load_task
from vitrail.runs.run import Run
from vitrail.tasks import ClassificationTask


def description(**changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": "vit_tiny_patch16", "fields": {"num_classes": 2, "image_size": [32, 48]}},
        "task": "classification",
        "classes": ["cat", "dog"],
        "training": {"label_smoothing": 0.2},
    } | changes


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.update(**description())
    save_file(build_task(Description.read(description())).state_dict(), run.weights)
    return run


def test_task_is_created_as_described() -> None:
    task = build_task(Description.read(description()))
    assert isinstance(task, ClassificationTask)
    assert task.classes == ("cat", "dog")
    assert task.label_smoothing == 0.2
    assert task.backbone.config.image_size == (32, 48)


def test_weights_come_back_and_the_task_is_ready_to_use(run: Run) -> None:
    task = load_task(run)
    assert not task.training
    saved = load_file(run.weights)
    assert saved.keys() == task.state_dict().keys()
    assert all(torch.equal(value, saved[name]) for name, value in task.state_dict().items())
    assert task(torch.randn(1, 3, 32, 48)).shape == (1, 2)


@pytest.mark.parametrize("key", ["model", "classes", "task"])
@pytest.mark.parametrize("value", [None, 3])
def test_an_incomplete_description_is_an_error_that_names_the_entry(key: str, value: object) -> None:
    with pytest.raises(RunError, match=f"'{key}' is {'missing' if value is None else '3: '}"):
        build_task(Description.read(description(**{key: value})))


def test_descriptions_that_cannot_be_built() -> None:
    with pytest.raises(RunError, match=r"'model\.fields' is missing"):
        build_task(Description.read(description(model={"name": "vit_tiny_patch16"})))
    with pytest.raises(RunError, match="unknown task 'juggling'; known: classification"):
        build_task(Description.read(description(task="juggling")))
    with pytest.raises(UnknownNameError, match="vit_tiny_patch16"):
        build_task(Description.read(description(model={"name": "vit_tinny_patch16", "fields": {}})))
    with pytest.raises(ConfigError, match="2 outputs for 3 classes"):
        build_task(Description.read(description(classes=["a", "b", "c"])))


def test_incomplete_folders(tmp_path: Path, run: Run) -> None:
    with pytest.raises(RunError, match="does not exist"):
        load_task(Run(tmp_path / "gone"))
    run.weights.unlink()
    with pytest.raises(RunError, match=r"model\.safetensors is missing"):
        load_task(run)


def test_damaged_weights(run: Run) -> None:
    run.weights.write_bytes(run.weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        load_task(run)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused_by_name(run: Run) -> None:
    state = load_file(run.weights)
    state["backbone.extra"] = torch.zeros(1)
    state["backbone.head.bias"] = torch.zeros(7)
    del state["backbone.head.weight"]
    save_file(state, run.weights)
    with pytest.raises(CheckpointError) as caught:
        load_task(run)
    for words in (
        "missing backbone.head.weight",
        "unexpected backbone.extra",
        r"backbone.head.bias is 7 in the file",
    ):
        assert words in str(caught.value)
