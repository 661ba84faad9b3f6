"""D-FINE and RT-DETRv2 behind our backbones: their own mathematics, and what we ask of a head."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from vitrail.core.errors import ConfigError, MissingDependencyError
from vitrail.models import create_model
from vitrail.tasks import DetectionTask
from vitrail.tasks.detection import DetectionOptions

KINDS = ("dfine", "rtdetrv2")


def make(kind: Any, image_size: tuple[int, int] = (64, 96)) -> DetectionTask:
    torch.manual_seed(0)
    backbone = create_model("edgevit_nano_stride2", num_classes=0, image_size=image_size)
    return DetectionTask(backbone, ("cell", "plate"), DetectionOptions(head=kind, width=16, proposals=12)).eval()


@pytest.fixture(scope="module", params=KINDS)
def task(request: pytest.FixtureRequest) -> DetectionTask:
    return make(request.param)


def target(*boxes: list[float], crowd: bool = False) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        "iscrowd": torch.full((len(boxes),), crowd),
    }


def test_forward_is_the_detectors_own_pass(task: DetectionTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the choice between places that score alike (test_selection.py)."""
    monkeypatch.setattr("vitrail.tasks.heads.queries.stable_topk", lambda logits, count: logits.topk(count).indices)
    images = torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        ours = task(images)
        levels = task._levels(images)
        theirs = task.head.detector(None, inputs_embeds=task.head._projected(levels))
    assert ours.shape == (3, 12, 6)
    torch.testing.assert_close(ours[..., 4:], theirs.logits)
    centres, sizes = (ours[..., :2] + ours[..., 2:4]) / 2, ours[..., 2:4] - ours[..., :2]
    torch.testing.assert_close(torch.cat([centres, sizes], -1), theirs.pred_boxes, atol=1e-5, rtol=1e-4)
    assert ours[..., :4].std() > 0.01, "boxes differ from one another"


def test_batch_norms_learn_and_weights_are_stored_once(task: DetectionTask) -> None:
    norms = [one for one in task.modules() if "BatchNorm" in type(one).__name__]
    assert norms
    assert all(isinstance(one, nn.BatchNorm2d) and one.weight.requires_grad for one in norms)
    state = task.state_dict()
    assert load(save(state)).keys() == state.keys()
    assert not [name for name in state if name.startswith("head.") and "backbone" in name]


def test_a_copy_is_independent(task: DetectionTask) -> None:
    """A moving average of the weights is one."""
    other = copy.deepcopy(task)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = task(images)
        for parameter in other.parameters():
            parameter.add_(0.1)
        torch.testing.assert_close(task(images), before)
        assert not torch.allclose(other(images), before)


def test_crowds_and_empty_images_teach_nothing_to_find(task: DetectionTask) -> None:
    other = copy.deepcopy(task).train()
    images = torch.randn(2, 3, 64, 96)
    losses = []
    for first in (target(), target([0.1, 0.1, 0.5, 0.5], crowd=True)):
        torch.manual_seed(0)
        losses.append(copy.deepcopy(other).training_answer(images, [first, target()])[0].item())
    assert losses[0] == losses[1]


def test_duplicates_are_its_own_business(task: DetectionTask) -> None:
    output = torch.full((1, 12, 6), -12.0)
    output[0, :2] = torch.tensor([0.2, 0.2, 0.6, 0.6, 4.0, -12.0])
    assert [len(found["boxes"]) for found in task.find_objects(output)] == [2]
    boxes = DetectionTask(task.backbone, task.classes, DetectionOptions(width=16))
    assert [len(found["boxes"]) for found in boxes.find_objects(output)] == [1], "anchors need suppression"


def test_validation_prefers_the_right_answer(task: DetectionTask) -> None:
    wanted = target([0.2, 0.2, 0.6, 0.6])
    right = torch.full((1, 12, 6), -12.0)
    right[..., :4] = torch.tensor([0.8, 0.8, 0.9, 0.9])
    wrong = right.clone()
    right[0, 3] = torch.tensor([0.2, 0.2, 0.6, 0.6, -12, 12])
    assert task.loss(right, [wanted]) < 0.1
    assert task.loss(wrong, [wanted]) > 1
    assert task.loss(wrong, [target()]) < 1e-3


def test_sizes_that_do_not_halve_are_refused() -> None:
    backbone = create_model("vit_nano_patch4", num_classes=0, image_size=28)
    with pytest.raises(ConfigError, match=r"28x28 pixels are 14x14, 7x7, 3x3, .* in multiples of 8"):
        DetectionTask(backbone, ("cell",), DetectionOptions(head="dfine", width=16))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vitrail\[transformers\]'"):
        make("dfine")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingDependencyError, match="scipy"):
        make("dfine")
