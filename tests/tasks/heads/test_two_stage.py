"""Two-stage heads, against torchvision's own and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, box_iou

from vitrail.core.errors import ConfigError
from vitrail.models import create_model
from vitrail.tasks import DetectionTask
from vitrail.tasks.detection import DETECTION, DetectionOptions
from vitrail.tasks.heads.two_stage import MASK_OUT, RegionDetector, overlaps, rows_of

SIZE = (64, 64)
SHAPES = [(16, 16), (8, 8), (4, 4)]


def detector(num_stages: int = 1, masks: bool = False, num_proposals: int = 12) -> RegionDetector:
    torch.manual_seed(0)
    return RegionDetector(
        8, 2, SIZE, SHAPES, strides=(4, 8, 16), num_stages=num_stages, masks=masks, num_proposals=num_proposals
    )


def levels(batch: int = 2) -> list[Tensor]:
    return [torch.randn(batch, 8, *shape) for shape in SHAPES]


def target(*boxes: list[float], crowd: bool = False, masks: bool = False) -> dict[str, Tensor]:
    values = {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.arange(len(boxes)) % 2,
        "iscrowd": torch.full((len(boxes),), crowd),
    }
    if masks:
        drawn = torch.zeros(len(boxes), *SIZE, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(drawn, (values["boxes"] * 64).int().tolist(), strict=True):
            mask[top : (top + bottom) // 2, left:right] = 1  # the upper half of the box
        values["masks"] = drawn
    return values


@pytest.mark.parametrize("training", [True, False])
def test_regions_are_pooled_as_torchvision_pools_them(training: bool) -> None:
    maps = levels()
    boxes = torch.rand(2, 20, 2) * 40
    boxes = torch.cat([boxes, boxes + torch.rand(2, 20, 2) * 300], -1).clamp(max=64)
    boxes[:, 0] = torch.tensor([5.0, 5.0, 5.0, 9.0])  # no area
    pooler = MultiScaleRoIAlign(["0", "1", "2"], 7, 2)
    want = pooler({str(i): level for i, level in enumerate(maps)}, list(boxes), [SIZE] * 2)
    torch.testing.assert_close(detector().train(training)._pool(maps, rows_of(boxes), 7), want)


def test_large_regions_come_from_coarse_levels() -> None:
    maps = [torch.full((1, 8, *shape), float(i)) for i, shape in enumerate(SHAPES)]
    sides = [20, 60, 100, 130, 300]
    rows = torch.tensor([[0.0, 0, 0, side, side] for side in sides])
    # a box of 224 pixels belongs to stride 16, half of it to 8, a quarter to 4
    assert detector()._pool(maps, rows, 7).amax((1, 2, 3)).tolist() == [0, 0, 0, 1, 2]


def test_overlaps_are_those_of_torchvision() -> None:
    boxes = torch.rand(2, 9, 2)
    boxes = torch.cat([boxes, boxes + torch.rand(2, 9, 2)], -1)
    for ours, one in zip(overlaps(boxes), boxes, strict=True):
        torch.testing.assert_close(ours, box_iou(one, one))


def test_proposals_are_likely_different_and_inside() -> None:
    model = detector(num_proposals=5).eval()
    maps = levels()
    with torch.no_grad():
        boxes = model._propose(maps)
    assert boxes.shape == (2, 5, 4)
    assert boxes.min() >= 0
    assert boxes.max() <= 64
    pairs = overlaps(boxes).triu(1)
    assert pairs.max() <= 0.7, "there are enough different ones"
    first = model.rpn.head(maps)[0]
    scores = torch.cat([one.permute(0, 2, 3, 1).flatten(1) for one in first], 1)
    anchor = model.anchors[scores[0].argmax()]
    assert box_iou(boxes[:1, 0], anchor.clamp(0, 64)[None]) > 0.8, "the most probable comes first, hardly moved"


def test_too_few_proposals_are_filled_up() -> None:
    model = detector(num_proposals=2000).eval()
    with torch.no_grad():
        assert model(levels()).shape == (2, 1000, 6), "the 1000 most probable anchors"


def test_probabilities_of_a_cascade_are_means_over_its_stages() -> None:
    model = detector(num_stages=3).eval()
    for index, stage in enumerate(model.stages):
        torch.nn.init.zeros_(stage.box_predictor.classes.weight)
        stage.box_predictor.classes.bias.data = torch.tensor([0.0, 0.0, float(index)])
    with torch.no_grad():
        found = model(levels())[..., 4:].sigmoid()
    want = torch.stack([torch.tensor([0.0, 0.0, float(i)]).softmax(0)[1:] for i in range(3)]).mean(0)
    torch.testing.assert_close(found, want.expand_as(found))


@pytest.mark.parametrize(("stages", "masks"), [(1, True), (3, False)])
def test_objects_are_learnt(stages: int, masks: bool) -> None:
    """Constant pictures of one object each: after some steps it is found, at its place, and so is its mask."""
    torch.manual_seed(0)
    model = detector(stages, masks).train()
    targets = [target([0.1, 0.2, 0.6, 0.7], masks=masks), target([0.5, 0.4, 0.9, 0.95], masks=masks)]
    targets[1]["labels"][0] = 1
    maps = levels()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        model.training_loss(maps, targets).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        output = model(maps)
    for values, wanted in zip(output, targets, strict=True):
        best, label = divmod(int(values[:, 4:6].argmax()), 2)
        assert label == wanted["labels"][0]
        assert box_iou(values[best : best + 1, :4], wanted["boxes"]) > 0.4
        if masks:
            grid = values[best, 6:].reshape(MASK_OUT, MASK_OUT)
            assert grid[3:10].mean() > grid[18:25].mean() + 3, "the upper half"
    assert model.loss(output, targets) < model.loss(output, targets[::-1])


def test_images_without_objects_and_crowds_teach_the_background() -> None:
    model = detector(1, masks=True).train()
    crowd = target([0.1, 0.1, 0.5, 0.5], crowd=True, masks=True)
    loss = model.training_loss(levels(), [target(masks=True), crowd])
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        assert torch.isfinite(model.loss(model.eval()(levels()), [target(masks=True), crowd]))


def test_detection_takes_every_head() -> None:
    backbone = create_model("edgevit_nano_stride2", num_classes=0)
    for head in ("fasterrcnn", "cascade"):
        task = DetectionTask(backbone, ("a", "b"), DetectionOptions(width=8, head=head, proposals=7)).eval()
        with torch.no_grad():
            output = task(torch.randn(1, 3, 48, 48))
        assert output.shape == (1, 7, 6)
        assert task.agreement(output, output) == 1
        other = output.clone()
        other[..., :4] = torch.tensor([0.99, 0.99, 1.0, 1.0])
        assert task.agreement(output, other) == 0
    with pytest.raises(ConfigError, match=r"options.head='maskrcnn' is not allowed"):
        DETECTION.read_options({"head": "maskrcnn"})
