from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.core.errors import ConfigError
from vitrail.core.types import FeatureInfo, Preprocessing
from vitrail.data import IGNORE
from vitrail.device.answer import windows
from vitrail.models import create_model
from vitrail.tasks import SegmentationTask, TaskSpec
from vitrail.tasks.class_loss import class_loss
from vitrail.tasks.drawing import class_colours
from vitrail.tasks.heads.pyramid import choose_levels
from vitrail.tasks.heads.semantic import average_cells
from vitrail.tasks.segmentation import SEGMENTATION, SegmentationAnswers, SegmentationOptions

CLASSES = ("sky", "road", "car")


def make(**options: object) -> SegmentationTask:
    backbone = create_model("edgevit_nano_stride2", num_classes=0)
    return SegmentationTask(backbone, CLASSES, SegmentationOptions(width=16, **options))


@pytest.mark.parametrize("size", [(5, 7), (6, 6), (13, 4)])
def test_cells_are_adaptive_average_pooling(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    for cells in (1, 2, 3, 6):
        torch.testing.assert_close(average_cells(x, cells), F.adaptive_avg_pool2d(x, cells))


def test_levels_are_the_last_of_each_stride() -> None:
    info = [FeatureInfo(name=str(i), channels=8, stride=s) for i, s in enumerate((2, 2, 4, 8, 16, 16, 32))]
    assert choose_levels(info) == [2, 3, 5, 6]
    assert choose_levels(info[:2]) == [1]


@pytest.mark.parametrize("head", ["semantic_fpn", "upernet"])
def test_logits_have_the_size_of_the_image(head: str) -> None:
    task = make(head=head).eval()
    assert task(torch.randn(2, 3, 48, 64)).shape == (2, 3, 48, 64)


def test_ignored_pixels_count_for_nothing() -> None:
    task = make().eval()
    output, targets = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    targets[:, :2] = IGNORE
    picked = -output.log_softmax(1)[:, :, 2:].gather(1, targets[:, 2:].unsqueeze(1))
    torch.testing.assert_close(task.loss(output, targets), picked.mean())
    assert task.loss(output, torch.full((2, 4, 4), IGNORE)) == 0
    metrics = task.metrics()
    metrics.update(F.one_hot(targets.clamp(max=2), 3).permute(0, 3, 1, 2).float(), targets)
    values = metrics.compute()
    assert values["miou"] == values["pixel_accuracy"] == 1


def test_the_loss_of_uneven_classes_is_for_training_only() -> None:
    task = make()
    output, targets = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    targets[:, :1] = IGNORE
    plain = task.train().loss(output, targets)
    task.class_loss = class_loss(
        torch.tensor([5.0, 1.0, 0.5]), loss="focal", class_weights="balanced", beta=0.9, gamma=2.0, tau=1.0
    )
    assert task.train().loss(output, targets) != plain
    assert task.eval().loss(output, targets) == plain
    weights = task.class_loss.weights
    assert weights is not None
    p = output.softmax(1).gather(1, targets.clamp(max=2).unsqueeze(1)).squeeze(1)
    by_hand = -weights[targets.clamp(max=2)] * (1 - p) ** 2 * p.log()
    torch.testing.assert_close(task.train().loss(output, targets), by_hand[targets != IGNORE].mean())
    assert not [name for name in task.state_dict() if "class_loss" in name]


def test_scores_by_hand() -> None:
    metrics = make().metrics()
    predicted, targets = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, IGNORE]]])
    metrics.update(F.one_hot(predicted, 3).permute(0, 3, 1, 2).float(), targets)
    values = metrics.compute()
    assert values["pixel_accuracy"] == pytest.approx(2 / 3)
    assert values["iou_per_class"].tolist() == [0.5, 0.5, 0.0]
    assert values["miou"] == 0.5, "a class that does not occur is no mistake"


def test_the_auxiliary_head_adds_its_share() -> None:
    task = make(auxiliary=0.5).eval()
    images, targets = torch.randn(2, 3, 48, 48), torch.randint(0, 3, (2, 48, 48))
    main = task.loss(task(images), targets)
    aside = task.loss(
        F.interpolate(task.auxiliary(task.pyramid(task.backbone, images)[-2]), size=(48, 48), mode="bilinear"), targets
    )
    torch.testing.assert_close(task.training_answer(images, targets)[0], main + 0.5 * aside)
    without = make(auxiliary=0)
    assert without.auxiliary is None
    assert torch.isfinite(without.training_answer(images, targets)[0])


class Threshold(nn.Module):
    """Red pixels are class 0, others class 2."""

    def forward(self, images: Tensor) -> Tensor:
        red = (images[:, :1] > 0).float()
        return 9 * torch.cat([red, torch.zeros_like(red), 1 - red], 1)


@pytest.mark.parametrize("inference", ["fit", "slide", "auto"])
@pytest.mark.parametrize("size", [(48, 48), (30, 100), (200, 150), (9, 12)])
def test_answers_lie_on_their_image(inference: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(inference=inference).eval()
    monkeypatch.setattr(task, "forward", Threshold().forward)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[0, : size[0] // 2] = 255
    (answer,) = SegmentationAnswers(task).predict([image], Preprocessing(image_size=(48, 48)))
    assert answer.labels.shape == size
    truth = torch.full(size, 2).where(image[0] == 0, 0)
    assert (answer.labels == truth).double().mean() > 0.93
    assert [name for name, _, _ in sorted(answer.shares, key=lambda one: one[1])] == ["sky", "car"]
    assert sum(share for _, _, share in answer.shares) == pytest.approx(1)


def test_windows_cover_and_overlap() -> None:
    assert list(windows((40, 48), (48, 48))) == [(0, 0)]
    seen = torch.zeros(100, 130)
    for top, left in windows((100, 130), (48, 64)):
        assert 0 <= top <= 52
        assert 0 <= left <= 66
        seen[top : top + 48, left : left + 64] += 1
    assert seen.min() >= 1
    assert seen.max() > 1


def test_pictures_show_classes_in_their_colours() -> None:
    task = make()
    image = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    drawn = SegmentationAnswers(task).draw(
        image, SegmentationAnswers(task).truth(torch.tensor([[0, 1], [2, IGNORE]], dtype=torch.uint8))
    )
    assert drawn[:, 1, 1].tolist() == [100, 100, 100]
    expected = (100 + class_colours(3)[1].int()) / 2
    assert (drawn[:, 0, 1] - expected).abs().max() <= 1
    assert len(class_colours(40).unique(dim=0)) == 40


def test_options_are_checked() -> None:
    spec = TaskSpec(classes=CLASSES, options={"head": "upernet", "width": "24"})
    task = SEGMENTATION.create(create_model("vit_nano_patch4", num_classes=0), spec)
    assert (task.options.head, task.options.width) == ("upernet", 24)
    for options, words in (
        ({"head": "unet"}, "options.head='unet' is not allowed"),
        ({"size": 3}, "task 'segmentation' has no option 'size'; it has head, width"),
        ({"width": 0}, "options.width=0"),
    ):
        with pytest.raises(ConfigError, match=words):
            SEGMENTATION.read_options(options)
    with pytest.raises(ConfigError, match="at least 2"):
        SegmentationTask(create_model("vit_nano_patch4", num_classes=0), ("one",))
