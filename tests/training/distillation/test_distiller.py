from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from vitrail.core.errors import ConfigError
from vitrail.core.types import Batch, FeatureInfo, Preprocessing
from vitrail.models import Backbone, create_model
from vitrail.tasks import ClassificationTask, MultiLabelTask
from vitrail.tasks.imitation import soft_labels
from vitrail.tasks.teacher import Seen, Teacher
from vitrail.training.distillation.choose_lessons import make_distiller, place_of, usual_lessons
from vitrail.training.distillation.config import DistillConfig
from vitrail.training.distillation.distiller import NUM_STEPS, Distiller
from vitrail.training.distillation.features_lesson import distances, resize_map
from vitrail.training.distillation.lesson import Lesson
from vitrail.training.distillation.levels import pair_last, pair_levels
from vitrail.training.distillation.module_teacher import ModuleTeacher, resized
from vitrail.training.distillation.watching import watched

CLASSES = ("cat", "dog", "fox")


def backbone(name: str = "edgevit_nano_stride2", num_classes: int = 3) -> Backbone:
    torch.manual_seed(0)
    return create_model(name, num_classes=num_classes, image_size=32)


def student() -> ClassificationTask:
    return ClassificationTask(backbone("vit_nano_patch4"), CLASSES)


def teacher(classes: Sequence[str] = CLASSES) -> ModuleTeacher:
    task = ClassificationTask(backbone(num_classes=len(classes)), classes)
    return ModuleTeacher("t", task.backbone, Preprocessing(image_size=(32, 32)), task=task, classes=classes)


def batch() -> Batch:
    torch.manual_seed(1)
    return Batch(images=torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), targets=torch.tensor([0, 1, 2, 0]))


def levels(*strides: int) -> list[FeatureInfo]:
    return [FeatureInfo(name=f"{i}", channels=8, stride=stride) for i, stride in enumerate(strides)]


def test_levels_of_pyramids_are_paired_by_stride() -> None:
    assert pair_levels(levels(4, 8, 16, 32), levels(4, 8, 16, 32)) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert pair_levels(levels(4, 8, 8, 16, 32), levels(8, 16)) == [(0, 0), (2, 0), (3, 1), (4, 1)]


def test_levels_of_plain_models_are_paired_by_depth() -> None:
    assert pair_levels(levels(*[16] * 6), levels(*[16] * 12)) == [(1, 3), (2, 5), (4, 9), (5, 11)]
    assert pair_levels(levels(4, 8, 16, 32), levels(*[16] * 12)) == [(0, 2), (1, 5), (2, 8), (3, 11)]


def test_last_tokens_go_to_the_deepest_level_of_their_stride() -> None:
    assert pair_last(levels(4, 8, 16, 16, 32), levels(*[16] * 12)) == [(3, 11)]
    assert pair_last(levels(*[16] * 3), levels(4, 8, 16, 32)) == [(2, 3)]


@pytest.mark.parametrize("name", ["edgevit_nano_stride2", "vit_nano_patch4", "maxvit_nano", "timm:resnet10t"])
def test_watching_shows_the_levels_and_changes_nothing(name: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    model = create_model(name, num_classes=3, image_size=64 if name == "maxvit_nano" else 32).eval()
    images = torch.randn(2, 3, *model.config.image_size)
    last = len(model.feature_info) - 1
    with torch.no_grad():
        expected, maps = model(images), model.forward_intermediates(images, intermediates_only=True)
        with watched(model, [0, last]) as seen:
            torch.testing.assert_close(model(images), expected)
        torch.testing.assert_close(seen[0], maps[0])
        torch.testing.assert_close(seen[last], maps[last])
        with watched(model, [last]) as seen:
            chosen = model.forward_intermediates(images, [0], intermediates_only=True)
        assert len(chosen) == 1
        torch.testing.assert_close(chosen[0], maps[0])
        torch.testing.assert_close(seen[last], maps[last])
    assert "forward" not in vars(model)


def test_the_loss_is_that_of_the_labels_plus_what_the_teacher_says() -> None:
    task, config = student().train(), DistillConfig(teacher="t", teach=("logits", "features", "attention"))
    distiller = make_distiller(config, task, teacher())
    loss, parts = distiller(task, torch.randn(4, 3, 32, 32), batch())
    assert list(parts) == ["labels", "logits", "features", "attention"]
    torch.testing.assert_close(loss.detach(), torch.stack(list(parts.values())).sum())
    loss.backward()
    assert all(one.grad is not None for one in distiller.parameters())
    assert all(one.grad is not None for one in task.parameters() if one.requires_grad)


def test_a_distillation_token_learns_from_the_teacher_and_the_class_token_from_the_labels() -> None:
    torch.manual_seed(0)
    model = create_model("vit_nano_patch4", num_classes=3, image_size=32, distillation_token=True)
    task = ClassificationTask(model, CLASSES).train()
    other, images = teacher(), torch.randn(4, 3, 32, 32)
    distiller = make_distiller(DistillConfig(teacher="t"), task, other)
    labels, taught = model.head_logits(model.forward_features(images))
    shown = other.show(batch().images).output
    assert shown is not None
    loss, parts = distiller(task, images, batch())
    torch.testing.assert_close(parts["labels"], task.loss(labels, batch().targets).detach())
    torch.testing.assert_close(
        parts["logits"], (distiller.scales[0] * soft_labels(taught, shown, 2.0)).detach().float()
    )
    loss.backward()
    assert float(model.head_dist.weight.grad.abs().sum()) > 0
    assert float(model.head.weight.grad.abs().sum()) > 0
    _, answer = ClassificationTask(model, CLASSES).train().training_answer(images, batch().targets)
    torch.testing.assert_close(answer, model(images))  # without a teacher both learn from the labels


class Fixed(Lesson):
    """A lesson whose loss is told."""

    name = "logits"

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self.values = list(values)

    def forward(self, student: Seen, teacher: Seen) -> Tensor:
        return torch.tensor(self.values.pop(0))


class Silent(Teacher):
    """A teacher that shows nothing."""

    def show(self, images: Tensor, levels: Sequence[int] = (), *, output: bool = True) -> Seen:
        return Seen()


class Told:
    """A task whose loss is told."""

    def __init__(self, loss: float) -> None:
        self.backbone, self.loss = None, loss

    def training_answer(self, *_: Any) -> tuple[Tensor, None]:
        return torch.tensor(self.loss), None


def test_lessons_are_as_large_as_the_labels_at_the_start_and_keep_their_weight() -> None:
    distiller = Distiller(Silent(), [Fixed([8.0] * NUM_STEPS + [4.0])])
    for _ in range(NUM_STEPS):
        loss, parts = distiller(Told(2.0), torch.zeros(1), batch())
        assert float(parts["logits"]) == pytest.approx(2)
    loss, parts = distiller(Told(0.1), torch.zeros(1), batch())
    assert float(parts["logits"]) == pytest.approx(1)  # 4 times a quarter, whatever the labels say now
    assert float(loss) == pytest.approx(1.1)


def test_a_lesson_that_is_learnt_from_the_start_does_not_explode() -> None:
    distiller = Distiller(Silent(), [Fixed([0.0, 1.0])])
    loss, _ = distiller(Told(2.0), torch.zeros(1), batch())
    assert float(loss) == 2
    assert torch.isfinite(distiller(Told(2.0), torch.zeros(1), batch())[0])


def test_the_weights_of_the_lessons_are_part_of_the_state_and_the_teacher_is_not() -> None:
    distiller = make_distiller(DistillConfig(teacher="t", teach=("features",)), student(), teacher())
    names = set(distiller.state_dict())
    assert {"own_sum", "sums", "count"} < names
    assert all(name.startswith(("lessons.0.projectors.", "own_sum", "sums", "count")) for name in names)
    assert copy.deepcopy(distiller).teacher is distiller.teacher


def test_a_teacher_learns_nothing_and_shows_float32() -> None:
    one = teacher()
    shown = one.show(batch().images, [0, 1])
    assert not any(parameter.requires_grad for parameter in one.module.parameters())
    assert not one.module.training
    assert shown.output is not None
    assert shown.output.shape == (4, 3)
    assert [level.dtype for level in shown.maps.values()] == [torch.float32] * 2
    assert one.show(batch().images, [1], output=False).output is None
    torch.testing.assert_close(one.show(batch().images, [1], output=False).maps[1], shown.maps[1])


def test_a_teacher_of_another_size_sees_the_whole_image() -> None:
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    images[..., 16:] = 200
    small = resized(images, (8, 8))
    assert small.shape == (1, 3, 8, 8)
    assert float(small[..., :3].max()) < 20
    assert float(small[..., 5:].min()) > 180
    assert resized(images, (32, 32)) is images


def test_classes_are_matched_by_name() -> None:
    task = student()
    other = teacher(("fox", "wolf", "Cat", "dog"))
    distiller = make_distiller(DistillConfig(teacher="t"), task, other)
    (lesson,) = distiller.lessons
    assert lesson.places == (2, 3, 0)
    output = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    student_output = torch.tensor([[3.0, 4.0, 1.0]])
    assert float(lesson(Seen(output=student_output), Seen(output=output))) == pytest.approx(0, abs=1e-6)


def test_names_that_differ_in_case_or_hyphens_are_the_same_if_only_one_is_meant() -> None:
    assert place_of("tiger lily", ["x", "Tiger-Lily"]) == 1
    assert place_of("a b", ["A_B", "a-b"]) is None
    assert place_of("A_B", ["A_B", "a-b"]) == 0
    assert place_of("a", ["a", "a"]) is None


def test_a_teacher_with_other_classes_teaches_its_maps_or_is_refused_with_a_list() -> None:
    other = teacher(("oak", "elm", "fox"))
    assert usual_lessons(student(), other) == ("features",)
    with pytest.raises(ConfigError, match=r"lacks the classes cat, dog; it has oak, elm, fox; choose features"):
        make_distiller(DistillConfig(teacher="t", teach=("logits",)), student(), other)


def test_a_teacher_of_another_task_teaches_its_maps() -> None:
    task = MultiLabelTask(backbone("vit_nano_patch4"), CLASSES)
    assert usual_lessons(task, teacher()) == ("features",)
    with pytest.raises(ConfigError, match="has learnt classification, not multilabel"):
        make_distiller(DistillConfig(teacher="t", teach=("logits",)), task, teacher())
    with pytest.raises(ConfigError, match="teach='hard' is not for the task multilabel"):
        same = MultiLabelTask(backbone(), CLASSES)
        shown = ModuleTeacher("t", same.backbone, Preprocessing(image_size=(32, 32)), task=same, classes=CLASSES)
        make_distiller(DistillConfig(teacher="t", teach=("hard",)), task, shown)


def test_a_teacher_without_maps_and_without_the_classes_is_refused() -> None:
    silent = Silent()
    silent.title, silent.task_name = "m.onnx", "classification"
    with pytest.raises(ConfigError, match=r"m.onnx does not name its classes; give --teacher-classes"):
        make_distiller(DistillConfig(teacher="m.onnx"), student(), silent)


def test_maps_shrink_by_averages() -> None:
    wanted = torch.arange(16.0).view(1, 1, 4, 4)
    assert resize_map(wanted, (2, 2)).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert resize_map(wanted, (8, 8)).shape == (1, 1, 8, 8)


def test_distances_are_zero_where_maps_agree() -> None:
    teacher_map = torch.randn(2, 6, 3, 3)
    white = (teacher_map - teacher_map.mean(1, keepdim=True)) / teacher_map.std(1, keepdim=True, unbiased=False)
    assert float(distances(teacher_map, teacher_map, "mse").max()) == 0
    assert float(distances(3 * teacher_map, teacher_map, "cosine").max()) == pytest.approx(0, abs=1e-5)
    assert float(distances(white, 5 * teacher_map + 2, "whitened").max()) == pytest.approx(0, abs=1e-4)
    assert float(distances(teacher_map, teacher_map, "whitened").min()) >= 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"teach": ("logits",)}, "needs a teacher"),
        ({"teacher": "t", "temperature": 0.0}, "outside"),
        ({"teacher": "t", "cache_teacher": -1}, "negative"),
        ({"teacher": "t", "teach": ("logits", "logits")}, "names a lesson twice"),
        ({"teacher": "t", "teacher_std": (0.0,)}, "teacher_std="),
        ({"teacher": "t", "teacher_image_size": -1}, "teacher_image_size=-1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        DistillConfig(**given)
