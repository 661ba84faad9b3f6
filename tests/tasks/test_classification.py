from __future__ import annotations

import pytest
import torch
from sklearn.metrics import f1_score, recall_score
from torch.nn import functional as F

from vitrail.core.errors import ConfigError
from vitrail.models import create_model
from vitrail.tasks import ClassificationTask, ClassScore
from vitrail.tasks.classification import ClassificationAnswers

CLASSES = ("cat", "dog", "bird")


def make(label_smoothing: float = 0.0) -> ClassificationTask:
    model = create_model("vit_tiny_patch16", num_classes=3, image_size=32)
    return ClassificationTask(model, CLASSES, label_smoothing=label_smoothing)


def test_output_is_the_backbones_logits_and_names_start_with_backbone() -> None:
    task = make().eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(task(images), task.backbone(images))
    assert all(name.startswith("backbone.") for name in task.state_dict())


def test_loss_is_cross_entropy_of_indices_and_of_soft_labels() -> None:
    task = make().eval()
    output, targets = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    expected = -output.log_softmax(1)[range(4), targets].mean()
    torch.testing.assert_close(task.loss(output, targets), expected)
    soft = F.one_hot(targets, 3).float() * 0.7 + 0.1
    torch.testing.assert_close(task.loss(output, soft), -(soft * output.log_softmax(1)).sum(1).mean())


def test_label_smoothing_is_for_training_only() -> None:
    task = make(label_smoothing=0.3)
    output, targets = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    smooth = F.one_hot(targets, 3) * 0.7 + 0.1
    torch.testing.assert_close(task.train().loss(output, targets), -(smooth * output.log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(task.eval().loss(output, targets), F.cross_entropy(output, targets))


def test_half_precision_outputs_do_not_lose_the_loss() -> None:
    output = torch.randn(4, 3).bfloat16()
    assert make().loss(output, torch.tensor([0, 1, 2, 0])).dtype == torch.float32


def test_predict_gives_classes_from_the_most_probable_on() -> None:
    task = make()
    logits = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]]).log()
    first, second = ClassificationAnswers(task).decode(logits, top_k=2)
    assert first == (
        ClassScore("dog", 1, pytest.approx(0.7)),
        ClassScore("bird", 2, pytest.approx(0.2)),
    )
    assert [score.label for score in second] == ["cat", "bird"]
    assert len(ClassificationAnswers(task).decode(logits, top_k=99)[0]) == 3
    assert sum(score.probability for score in ClassificationAnswers(task).decode(logits)[0]) == pytest.approx(1)


def test_metrics_with_fewer_than_five_classes() -> None:
    metrics = make().metrics()
    metrics.update(torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0, 1, 1, 1]))
    values = metrics.compute()
    assert (values["top1"].item(), values["top5"].item()) == (0.5, 1.0)


def test_metrics_top5_where_the_first_batch_is_all_right() -> None:
    metrics = ClassificationTask(create_model("vit_tiny_patch16", num_classes=8, image_size=32), "abcdefgh").metrics()
    metrics.update(torch.eye(8), torch.arange(8))
    metrics.update(torch.eye(8).roll(1, 1) + torch.eye(8) / 2, torch.arange(8))  # the answer is the second guess
    values = metrics.compute()
    assert (values["top1"].item(), values["top5"].item()) == (0.5, 1.0)


def test_macro_scores_count_each_class_that_occurs_alike() -> None:
    metrics = ClassificationTask(create_model("vit_tiny_patch16", num_classes=4, image_size=32), "abcd").metrics()
    labels = torch.tensor([0] * 8 + [1, 1, 2])  # the last class does not occur, and one image is taken for it
    answers = torch.tensor([0] * 7 + [1] + [1, 0, 3])
    for part in (slice(0, 5), slice(5, 11)):
        metrics.update(F.one_hot(answers[part], 4).float(), labels[part])
    values = metrics.compute()
    assert values["macro_recall"].item() == pytest.approx((7 / 8 + 1 / 2 + 0) / 3)
    assert values["macro_f1"].item() == pytest.approx((14 / 16 + 2 / 4 + 0) / 3)
    occurring = {"labels": [0, 1, 2], "average": "macro"}
    assert recall_score(labels, answers, **occurring) == pytest.approx(values["macro_recall"].item())
    assert f1_score(labels, answers, **occurring) == pytest.approx(values["macro_f1"].item())
    assert values["top1"].item() == pytest.approx(8 / 11)


def test_metrics_top5() -> None:
    task = ClassificationTask(create_model("vit_tiny_patch16", num_classes=8, image_size=32), "abcdefgh")
    metrics = task.metrics()
    metrics.update(torch.arange(8.0).repeat(2, 1), torch.tensor([3, 2]))  # ranks 5 and 6
    assert metrics.compute()["top5"].item() == 0.5


@pytest.mark.parametrize(
    ("classes", "smoothing", "words"),
    [(("a", "b"), 0.0, "3 outputs for 2 classes"), (("a",), 0.0, "at least 2"), (CLASSES, 1.0, "label_smoothing=1.0")],
)
def test_what_does_not_fit_is_an_error(classes: tuple[str, ...], smoothing: float, words: str) -> None:
    model = create_model("vit_tiny_patch16", num_classes=3, image_size=32)
    with pytest.raises(ConfigError, match=words):
        ClassificationTask(model, classes, label_smoothing=smoothing)


def test_agreement_by_hand() -> None:
    left = torch.tensor([[1.0, 0], [0, 1], [2, 1], [0, 3]])
    right = torch.tensor([[5.0, 0], [1, 0], [3, 1], [0, 1]])
    assert make().agreement(left, right) == 0.75
