"""Every head on every family: it computes, it learns, and its file agrees with it.

The fast part takes each head on a family with stages, a plain one, or one of fixed windows; the slow part takes all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vitrail.core.types import Preprocessing
from vitrail.export import export_model
from vitrail.models import FAMILIES, Backbone, create_model
from vitrail.tasks import DetectionTask, InstanceTask, PoseTask, SegmentationTask, Task
from vitrail.tasks.detection import DetectionOptions
from vitrail.tasks.instances import InstanceOptions
from vitrail.tasks.pose import PoseOptions
from vitrail.tasks.segmentation import SegmentationOptions

SMALL = {family.name: next(name for name in family.ours if "nano" in name) for family in FAMILIES.values()}


def segmentation(head: Any) -> Callable[[Backbone, Tensor], tuple[Task, Any]]:
    def make(backbone: Backbone, images: Tensor) -> tuple[Task, Any]:
        targets = (images[:, 0] > 0).long()
        targets[:, :4] = 255
        return SegmentationTask(backbone, ("a", "b", "c"), SegmentationOptions(head=head, width=16)), targets

    return make


def boxes(images: Tensor) -> list[dict[str, Tensor]]:
    """One object in the first image, none in the second."""
    objects = {
        "boxes": torch.tensor([[0.1, 0.2, 0.6, 0.7]]),
        "labels": torch.tensor([1]),
        "iscrowd": torch.zeros(1) > 0,
        "masks": torch.ones(1, *images.shape[-2:], dtype=torch.uint8),
    }
    return [objects, {name: value[:0] for name, value in objects.items()}]


def detection(head: Any) -> Callable[[Backbone, Tensor], tuple[Task, Any]]:
    def make(backbone: Backbone, images: Tensor) -> tuple[Task, Any]:
        options = DetectionOptions(head=head, width=16, proposals=10)
        return DetectionTask(backbone, ("a", "b", "c"), options), boxes(images)

    return make


def instances(head: Any) -> Callable[[Backbone, Tensor], tuple[Task, Any]]:
    def make(backbone: Backbone, images: Tensor) -> tuple[Task, Any]:
        options = InstanceOptions(head=head, width=16, proposals=10)
        return InstanceTask(backbone, ("a", "b", "c"), options), boxes(images)

    return make


def pose(decoder: Any) -> Callable[[Backbone, Tensor], tuple[Task, Any]]:
    def make(backbone: Backbone, images: Tensor) -> tuple[Task, Any]:
        keypoints = torch.tensor([[0.3, 0.4, 1], [0.7, 0.6, 1]]).expand(len(images), 2, 3)
        options = PoseOptions(decoder=decoder, width=16)
        return PoseTask(backbone, ("left", "right"), options), {"keypoints": keypoints}

    return make


HEADS = (
    {name: segmentation(name) for name in ("semantic_fpn", "upernet")}
    | {name: detection(name) for name in ("retinanet", "fasterrcnn", "cascade", "dfine", "rtdetrv2")}
    | {"maskrcnn": instances("maskrcnn"), "cascade_mask": instances("cascade")}
    | {"pose": pose("classic"), "pose_simple": pose("simple")}
)
FAST = {
    "semantic_fpn": ("vit",),
    "upernet": ("edgevit",),
    "retinanet": ("edgevit",),
    "pose": ("vit",),
    "pose_simple": ("maxvit",),
    "fasterrcnn": ("maxvit",),
    "cascade": (),
    "maskrcnn": ("edgevit",),
    "cascade_mask": ("vit",),
    "dfine": ("vit",),
    "rtdetrv2": ("edgevit",),
}
"""Families of a head in the fast part: a head takes seconds a family."""

EVERY = [
    pytest.param(
        family,
        head,
        marks=() if family in FAST.get(head, ()) else pytest.mark.slow,
        id=f"{family}-{head}",
    )
    for family in FAMILIES
    for head in HEADS
]


def build(family: str, head: str) -> tuple[Task, Tensor, Any]:
    torch.manual_seed(0)
    backbone = create_model(SMALL[family], num_classes=0)
    images = torch.randn(2, 3, *backbone.config.image_size)
    task, targets = HEADS[head](backbone, images)
    return task, images, targets


@pytest.mark.parametrize(("family", "head"), EVERY)
def test_ten_steps_lower_the_loss(family: str, head: str) -> None:
    task, images, targets = build(family, head)
    task.train()
    # a single convolution over raw features: each step of its weights counts a thousand times
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-4 if head == "pose_simple" else 2e-3)
    losses = []
    for _ in range(10):
        torch.manual_seed(0)  # the same samples and the same noise, so that losses can be compared
        loss = task.training_answer(images, targets)[0]
        optimizer.zero_grad()
        loss.backward()
        missing = [
            name
            for name, parameter in task.named_parameters()
            if parameter.requires_grad and parameter.grad is None and not name.startswith("backbone.")
        ]
        assert not missing
        optimizer.step()
        losses.append(loss.item())
    # which queries are chosen before the first step is luck, and may be good
    assert losses[-1] < 0.9 * max(losses[:2]), losses


@pytest.mark.parametrize(
    ("family", "head"),
    [
        pytest.param(family, head, marks=pytest.mark.slow, id=f"{family}-{head}")  # tests/cli exports a few
        for family in FAMILIES
        for head in HEADS
    ],
)
def test_the_file_agrees(family: str, head: str, tmp_path: Path) -> None:
    task, images, _ = build(family, head)
    size = task.backbone.config.image_size
    record = export_model(
        task.eval(),
        tmp_path / "model.onnx",
        preprocessing=Preprocessing(image_size=size),
        classes=task.classes,
        images=images,
    )
    assert record.max_relative_error < 1e-4
