from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vitrail.core.types import Preprocessing
from vitrail.data.formats.coco_shapes import decode_mask
from vitrail.device.outputs import run_lengths
from vitrail.models import create_model
from vitrail.tasks import InstanceTask
from vitrail.tasks.instances import InstanceAnswers, InstanceOptions, SegmentedObject


@pytest.fixture(scope="module")
def task() -> InstanceTask:
    torch.manual_seed(0)
    backbone = create_model("edgevit_nano_stride2", num_classes=0)
    return InstanceTask(backbone, ("cell", "plate"), InstanceOptions(width=8, proposals=4)).eval()


def half_of(box: list[float]) -> tuple[dict[str, Tensor], Tensor]:
    """An object whose upper half is its mask, and the raw output of a model that is right about it."""
    mask = torch.zeros(1, 48, 48, dtype=torch.uint8)
    left, top, right, bottom = (round(48 * side) for side in box)
    mask[0, top : (top + bottom) // 2, left:right] = 1
    truth = {
        "boxes": torch.tensor([box]),
        "labels": torch.tensor([1]),
        "iscrowd": torch.tensor([False]),
        "masks": mask,
    }
    output = torch.full((1, 4, 4 + 2 + 28 * 28), -12.0)
    output[0, :, :4] = torch.tensor([0.0, 0.0, 0.01, 0.01])
    output[0, 2, :4], output[0, 2, 5] = torch.tensor(box), 12.0
    output[0, 2, 6 : 6 + 14 * 28] = 12.0
    return truth, output


def test_a_right_mask_scores_everything_and_a_wrong_one_nothing(task: InstanceTask) -> None:
    truth, output = half_of([0.25, 0.25, 0.75, 0.75])
    metrics = task.metrics()
    metrics.update(output, [truth])
    values = metrics.compute()
    assert values["mask_map"] == pytest.approx(1)
    assert values["map"] == pytest.approx(1)
    assert values["ap_per_class"].tolist() == pytest.approx([0, 1])
    output[0, 2, 6:] *= -1  # the lower half
    metrics = task.metrics()
    metrics.update(output, [truth])
    values = metrics.compute()
    assert values["map"] == pytest.approx(1)
    assert values["mask_map_50"] == 0
    assert set(values) == {score.name for score in task.scores} | {"ap_per_class"}


def test_answers_are_in_pixels_of_their_image(task: InstanceTask, monkeypatch: pytest.MonkeyPatch) -> None:
    _, output = half_of([0.25, 0.25, 0.75, 0.5])
    monkeypatch.setattr(task, "forward", lambda _: output)
    image = torch.zeros(3, 60, 120, dtype=torch.uint8)  # fills the upper half of the frame
    (answer,) = InstanceAnswers(task).predict([image], Preprocessing(image_size=(48, 48)))
    (found,) = answer
    assert isinstance(found, SegmentedObject)
    assert found.box == pytest.approx((30, 30, 90, 60), abs=1e-3)
    mask = found.mask()
    assert mask.shape == (60, 120)
    assert mask[32:43, 34:86].all()
    assert not mask[47:].any()
    assert not mask[:, :28].any()
    entry = InstanceAnswers(task).to_dict(answer)["objects"][0]
    assert entry["label"] == "plate"
    assert entry["mask"]["size"] == [60, 120]
    assert torch.equal(decode_mask(entry["mask"], (60, 120)).bool(), mask)
    drawn = InstanceAnswers(task).draw(image, answer)
    assert (drawn[:, 35:40, 50:60] != 0).any(0).all()
    assert (drawn[:, 50:55, 50:60] == 0).all()


def test_annotations_can_be_drawn(task: InstanceTask) -> None:
    truth, _ = half_of([0.25, 0.25, 0.75, 0.75])
    (one,) = InstanceAnswers(task).truth(truth | {"boxes": truth["boxes"] * 48})
    assert torch.equal(one.mask(), truth["masks"][0].bool())


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_cocos(seed: int) -> None:
    mask = torch.from_numpy(np.random.default_rng(seed).random((7, 5)) < (0.0, 0.2, 0.5, 0.9, 1.1)[seed])
    counts = run_lengths(mask.numpy())
    assert torch.equal(decode_mask({"size": [7, 5], "counts": counts}, (7, 5)).bool(), mask)
