from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vitrail.core.errors import ConfigError, ImageSizeError
from vitrail.core.types import Preprocessing
from vitrail.models import create_model
from vitrail.tasks import DetectionTask
from vitrail.tasks.detection import DETECTION, DetectedObject, DetectionAnswers, DetectionOptions
from vitrail.tasks.heads.retinanet import match


@pytest.fixture(scope="module")
def task() -> DetectionTask:
    torch.manual_seed(0)
    backbone = create_model("edgevit_nano_stride2", num_classes=0)
    return DetectionTask(backbone, ("cell", "plate"), DetectionOptions(width=16)).eval()


def target(*objects: tuple[int, list[float]], crowd: bool = False) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([box for _, box in objects]).reshape(-1, 4),
        "labels": torch.tensor([label for label, _ in objects], dtype=torch.int64),
        "iscrowd": torch.full((len(objects),), crowd),
    }


def perfect(task: DetectionTask, *targets: dict[str, Tensor]) -> Tensor:
    """The raw output of a model that is right and sure."""
    output = torch.full((len(targets), len(task.head.anchors), 6), -12.0)
    output[..., :4] = torch.tensor([0.0, 0, 0.01, 0.01])
    for image, one in enumerate(targets):
        matched = match(task.head.corners(), one)
        for anchor in (matched >= 0).nonzero().flatten().tolist():
            output[image, anchor, :4] = one["boxes"][matched[anchor]]
            output[image, anchor, 4 + one["labels"][matched[anchor]]] = 12.0
    return output


BOXES = target((0, [0.1, 0.1, 0.5, 0.6]), (1, [0.55, 0.5, 0.95, 0.9]))
NOTHING = target()


def test_output_has_one_row_an_anchor(task: DetectionTask) -> None:
    # levels of stride 4, 8, 16 and one more, nine anchors a place
    assert len(task.head.anchors) == 9 * (12 * 12 + 6 * 6 + 3 * 3 + 2 * 2)
    assert task(torch.randn(2, 3, 48, 48)).shape == (2, len(task.head.anchors), 6)
    with pytest.raises(ImageSizeError, match="set of anchors is for 48x48"):
        task(torch.randn(1, 3, 64, 64))


def test_anchors_lie_in_the_order_of_the_head(task: DetectionTask) -> None:
    """The first place is the top left one of the finest level, its right neighbour comes next."""
    first, second = task.head.anchors[:9], task.head.anchors[9:18]
    torch.testing.assert_close(first[:, :2], torch.tensor([[0.5 / 12, 0.5 / 12]]).expand(9, 2))
    torch.testing.assert_close(second[:, :2], torch.tensor([[1.5 / 12, 0.5 / 12]]).expand(9, 2))
    areas = first[:, 2] * first[:, 3] * 48**2
    assert areas[0] == pytest.approx((4 * 4) ** 2, rel=1e-4)


def test_untrained_boxes_are_the_anchors(task: DetectionTask) -> None:
    with torch.no_grad():
        boxes = task(torch.zeros(1, 3, 48, 48))[0, :, :4]
    sizes = boxes[:, 2:] - boxes[:, :2]
    assert (sizes / task.head.anchors[:, 2:]).log().abs().max() < 0.5


def test_a_right_answer_costs_nothing_and_scores_everything(task: DetectionTask) -> None:
    right, wrong = perfect(task, BOXES, NOTHING), perfect(task, NOTHING, BOXES)
    assert task.loss(right, [BOXES, NOTHING]) < 1e-3
    assert task.loss(wrong, [BOXES, NOTHING]) > 1
    metrics = task.metrics()
    metrics.update(right, [BOXES, NOTHING])
    values = metrics.compute()
    assert values["map"] == pytest.approx(1)
    assert values["ap_per_class"].tolist() == pytest.approx([1, 1])
    metrics = task.metrics()
    metrics.update(wrong, [BOXES, NOTHING])
    assert metrics.compute()["map"] == 0


def test_every_object_has_an_anchor(task: DetectionTask) -> None:
    tiny = target((0, [0.5, 0.5, 0.51, 0.51]), (1, [0.0, 0.0, 1.0, 0.02]))
    matched = match(task.head.corners(), tiny)
    assert {0, 1} <= set(matched.tolist())
    assert (match(task.head.corners(), NOTHING) == -1).all()


def test_crowds_are_neither_learnt_nor_counted(task: DetectionTask) -> None:
    crowd = target((0, [0.1, 0.1, 0.5, 0.6]), crowd=True)
    assert set(match(task.head.corners(), crowd).tolist()) == {-1, -2}
    metrics = task.metrics()
    both = {name: torch.cat([crowd[name], BOXES[name][1:]]) for name in crowd}
    metrics.update(perfect(task, BOXES), [both])
    assert metrics.compute()["map"] == pytest.approx(1), "a find inside a crowd is no mistake"


def test_duplicates_are_dropped_within_a_class_alone(task: DetectionTask) -> None:
    output = torch.full((1, len(task.head.anchors), 6), -12.0)
    for anchor, shift, label in ((0, 0.0, 4), (1, 0.01, 4), (2, 0.0, 5)):
        output[0, anchor, :4] = torch.tensor([0.2, 0.2, 0.6, 0.6]) + shift
        output[0, anchor, label] = 2.0 - anchor / 10
    (found,) = task.find_objects(output)
    assert found["labels"].tolist() == [0, 1]
    assert found["scores"].tolist() == pytest.approx([0.8808, 0.8581], abs=1e-4)


@pytest.mark.parametrize("size", [(48, 48), (30, 90), (200, 100)])
def test_answers_are_in_pixels_of_their_image(
    task: DetectionTask, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = (min(48, round(48 * size[0] / max(size))), min(48, round(48 * size[1] / max(size))))
    share = torch.tensor([0.25 * inner[1], 0.5 * inner[0], 0.75 * inner[1], inner[0]]) / 48
    output = torch.full((1, len(task.head.anchors), 6), -12.0)
    output[0, 5, :4], output[0, 5, 5] = share, 3.0
    monkeypatch.setattr(task, "forward", lambda _: output)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    ((found,),) = DetectionAnswers(task).predict([image], Preprocessing(image_size=(48, 48)))
    assert found.label == "plate"
    assert found.box == pytest.approx((0.25 * size[1], 0.5 * size[0], 0.75 * size[1], size[0]), abs=1e-3)
    assert DetectionAnswers(task).draw(image, (found,)).shape == image.shape
    assert (DetectionAnswers(task).draw(image, (found,)) != image).any()


def test_answers_in_words(task: DetectionTask) -> None:
    answer = (DetectedObject("cell", 0, 0.75, (1.0, 2.0, 3.0, 4.0)),)
    assert DetectionAnswers(task).rows(answer) == [("cell", 0.75, 1.0, 2.0, 3.0, 4.0)]
    assert len(DetectionAnswers.columns) == len(DetectionAnswers(task).rows(answer)[0])
    assert DetectionAnswers(task).to_dict(answer)["objects"][0]["box"] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 20}, "multiple of 8"),
        ({"score_threshold": 1.5}, "score_threshold=1.5"),
        ({"max_objects": 0}, "options.max_objects=0 is below 1"),
    ],
)
def test_options_are_checked(options: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DETECTION.read_options(options)


@pytest.mark.parametrize(("head", "side"), [("retinanet", 2 * 4), ("fasterrcnn", 4 * 2)])
def test_smaller_anchors_for_smaller_objects(head: Any, side: int) -> None:
    backbone = create_model("edgevit_nano_stride2", num_classes=0)
    options = DetectionOptions(head=head, width=16, anchor_scale=2)
    anchors = DetectionTask(backbone, ("cell",), options).head.anchors
    area = anchors[0, 2] * anchors[0, 3] * 48**2 if head == "retinanet" else (anchors[0, 2:] - anchors[0, :2]).prod()
    assert area == pytest.approx(side**2, rel=0.2), "in pixels; their finest levels have strides 4 and 2"
    with pytest.raises(ConfigError, match="anchor_scale=0 is outside"):
        DetectionOptions(anchor_scale=0)


def test_options_may_be_written_with_dashes() -> None:
    options = DETECTION.read_options({"max-objects": 7, "nms_threshold": 0.4})
    assert (options.max_objects, options.nms_threshold) == (7, 0.4)
