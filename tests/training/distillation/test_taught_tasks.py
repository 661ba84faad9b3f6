"""Every task that learns from labels learns from a teacher of its kind, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vitrail.core.errors import ConfigError
from vitrail.core.types import Batch, Preprocessing
from vitrail.models import create_model
from vitrail.tasks import (
    AestheticsTask,
    DetectionTask,
    InstanceTask,
    MultiLabelTask,
    PoseTask,
    SegmentationTask,
    Task,
)
from vitrail.tasks.aesthetics import AestheticsOptions
from vitrail.tasks.detection import DetectionOptions
from vitrail.tasks.pose import PoseOptions
from vitrail.training.distillation.choose_lessons import make_distiller, usual_lessons
from vitrail.training.distillation.config import DistillConfig
from vitrail.training.distillation.module_teacher import ModuleTeacher

CLASSES = ("cat", "dog")
SIZE = (64, 64)
BOXES = {
    "boxes": torch.tensor([[0.1, 0.1, 0.6, 0.7]]),
    "labels": torch.tensor([1]),
    "iscrowd": torch.tensor([False]),
}
TARGETS: dict[str, Any] = {
    "segmentation": torch.randint(0, 2, (2, *SIZE), generator=torch.Generator().manual_seed(0)),
    "detection": [BOXES, BOXES],
    "pose": {"keypoints": torch.tensor([[[0.2, 0.3, 1.0], [0.7, 0.6, 1.0]]] * 2)},
    "aesthetics": {"distribution": torch.tensor([[0.2, 0.3, 0.5]] * 2)},
    "multilabel": torch.tensor([[1.0, 0.0], [0.0, -1.0]]),
}


def make(kind: str, model: str, seed: int, **options: Any) -> Task:
    torch.manual_seed(seed)
    backbone = create_model(model, num_classes=2 if kind == "multilabel" else 0, image_size=SIZE)
    if kind == "segmentation":
        return SegmentationTask(backbone, CLASSES)
    if kind == "detection":
        return DetectionTask(backbone, CLASSES, DetectionOptions(width=16, **options))
    if kind == "pose":
        return PoseTask(backbone, CLASSES, PoseOptions(width=16, **options))
    if kind == "aesthetics":
        return AestheticsTask(backbone, options.pop("scale", (1, 2, 3)), AestheticsOptions(**options))
    return MultiLabelTask(backbone, CLASSES)


def teacher_of(task: Task) -> ModuleTeacher:
    return ModuleTeacher("t", task.backbone, Preprocessing(image_size=SIZE), task=task, classes=task.classes)


def batch(kind: str) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=generator)
    return Batch(images=images, targets=TARGETS[kind])


@pytest.mark.parametrize("kind", list(TARGETS))
def test_outputs_and_maps_teach(kind: str) -> None:
    task, teacher = make(kind, "edgevit_nano_stride2", 0).train(), teacher_of(make(kind, "edgevit_nano_stride2", 1))
    assert usual_lessons(task, teacher) == ("logits",)
    distiller = make_distiller(DistillConfig(teacher="t", teach=("logits", "features")), task, teacher)
    inputs = Preprocessing(image_size=SIZE).normalize(batch(kind).images)
    loss, parts = distiller(task, inputs, batch(kind))
    assert all(float(part) > 0 for part in parts.values())
    loss.backward()
    missing = [name for name, one in task.named_parameters() if one.grad is None and not name.startswith("auxiliary")]
    assert missing == []


@pytest.mark.parametrize("kind", ["segmentation", "detection", "pose", "multilabel"])
def test_a_twin_has_nothing_to_learn_from_outputs(kind: str) -> None:
    task, teacher = make(kind, "edgevit_nano_stride2", 0).eval(), teacher_of(make(kind, "edgevit_nano_stride2", 0))
    distiller = make_distiller(DistillConfig(teacher="t"), task, teacher).eval()
    inputs = Preprocessing(image_size=SIZE).normalize(batch(kind).images)
    with torch.no_grad():
        _, parts = distiller(task, inputs, batch(kind))
    assert float(parts["logits"]) == pytest.approx(0, abs=1e-3)


def test_queries_teach_what_they_find() -> None:
    pytest.importorskip("transformers")
    task, other = (make("detection", "edgevit_nano_stride2", seed, head="dfine", proposals=8) for seed in (0, 1))
    with torch.no_grad():
        for name, one in other.named_parameters():
            if "score_head" in name or "class_embed" in name:
                one.add_(0.5)  # it is certain of something
    distiller = make_distiller(DistillConfig(teacher="t"), task.train(), teacher_of(other))
    inputs = Preprocessing(image_size=SIZE).normalize(batch("detection").images)
    loss, parts = distiller(task, inputs, batch("detection"))
    assert float(parts["logits"]) > 0
    loss.backward()
    _, output = task.training_answer(inputs, TARGETS["detection"])
    assert output is not None
    assert output.shape == task.eval()(inputs).shape


def test_a_detector_learns_classes_in_another_order() -> None:
    task, teacher = make("detection", "edgevit_nano_stride2", 0), make("detection", "edgevit_nano_stride2", 0)
    output = torch.arange(12.0).view(1, 2, 6)
    assert task.choose_classes(output, [1, 0])[0, 0].tolist() == [0, 1, 2, 3, 5, 4]
    teacher.classes = ("dog", "cat")
    (lesson,) = make_distiller(DistillConfig(teacher="t"), task, teacher_of(teacher)).lessons
    assert lesson.places == (1, 0)


@pytest.mark.parametrize(
    ("student", "teacher", "told"),
    [
        ({}, {"anchor_scale": 2.0}, "its anchors are others"),
        ({}, {"head": "fasterrcnn"}, "its head is fasterrcnn, whose rows mean something else than those of retinanet"),
        ({"head": "fasterrcnn"}, {}, "the outputs of this detection are not comparable in training"),
    ],
)
def test_detectors_with_other_rows_teach_their_maps(
    student: dict[str, Any], teacher: dict[str, Any], told: str
) -> None:
    task, other = (make("detection", "edgevit_nano_stride2", 0, **options) for options in (student, teacher))
    assert usual_lessons(task, teacher_of(other)) == ("features",)
    with pytest.raises(ConfigError, match=told):
        make_distiller(DistillConfig(teacher="t", teach=("logits",)), task, teacher_of(other))


def test_objects_count_more_than_background_in_the_maps_of_a_detector() -> None:
    task = make("detection", "edgevit_nano_stride2", 0)
    output = torch.full((1, 3, 6), -9.0)
    output[0, :, :4] = torch.tensor([0.0, 0.0, 0.5, 0.5])
    output[0, 0, 5] = 4.0
    weights = task.importance(output, (4, 4))
    assert weights is not None
    assert weights[0, 0, 0, 0] > 0.9
    assert weights[0, 0, 3, 3] == pytest.approx(0.1)
    distiller = make_distiller(DistillConfig(teacher="t", teach=("features",)), task, teacher_of(task))
    assert distiller.wants_output


def test_instances_learn_maps_from_a_detector() -> None:
    torch.manual_seed(0)
    task = InstanceTask(create_model("edgevit_nano_stride2", num_classes=0, image_size=SIZE), CLASSES)
    assert usual_lessons(task, teacher_of(make("detection", "edgevit_nano_stride2", 1))) == ("features",)


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [("pose", {"sigma": 3.0}, "its peaks have sigma=3"), ("aesthetics", {"scale": (1, 2, 3, 4)}, "from 1 to 4 in 4")],
)
def test_outputs_of_another_scale_are_not_imitated(kind: str, options: dict[str, Any], told: str) -> None:
    task, other = make(kind, "edgevit_nano_stride2", 0), make(kind, "edgevit_nano_stride2", 1, **options)
    with pytest.raises(ConfigError, match=told):
        make_distiller(DistillConfig(teacher="t", teach=("logits",)), task, teacher_of(other))


def test_a_teacher_whose_answers_are_no_numbers_is_told() -> None:
    task, other = make("multilabel", "edgevit_nano_stride2", 0), make("multilabel", "edgevit_nano_stride2", 1)
    with torch.no_grad():
        next(iter(other.backbone.parameters())).fill_(float("nan"))
    distiller = make_distiller(DistillConfig(teacher="t"), task, teacher_of(other))
    with pytest.raises(ConfigError, match="answers that are no numbers"):
        distiller(task, torch.zeros(2, 3, *SIZE), batch("multilabel"))
