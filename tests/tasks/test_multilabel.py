"""Any number of classes an image: losses, scores and bounds by hand and against libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from torch.nn import functional as F

from vitrail.core.errors import ConfigError
from vitrail.evaluation import describe_findings
from vitrail.models import create_model
from vitrail.tasks import MultiLabelTask, TaskSpec, answers_of, create_task
from vitrail.tasks.findings.label_findings import LabelFindings
from vitrail.tasks.label_loss import LabelLoss, label_loss
from vitrail.tasks.metrics.label_scores import LabelBoundSearch, LabelMetric, RankedLabels
from vitrail.tasks.multilabel import MultiLabelOptions

CLASSES = ("cat", "dog", "bird")
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 0.2, 4.0], [0.0, 1.0, -1.0], [1.5, -2.0, 0.1]])
TARGETS = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 1.0]])
KNOWN = TARGETS >= 0


def make(**given: Any) -> LabelLoss:
    plain: dict[str, Any] = {"loss": "cross_entropy", "class_weights": None, "beta": 0.9, "gamma": 2.0}
    shares = torch.tensor([[90, 10, 5], [10, 90, 0]])
    return label_loss(shares, asymmetry=(1.0, 4.0, 0.05), **(plain | given))


def test_without_anything_it_is_the_binary_cross_entropy_of_what_is_known() -> None:
    wanted = F.binary_cross_entropy_with_logits(LOGITS, TARGETS.clamp(min=0), reduction="none") * KNOWN
    torch.testing.assert_close(make()(LOGITS, TARGETS), wanted.sum(1) / 3)
    whole = TARGETS.clamp(min=0)
    torch.testing.assert_close(make()(LOGITS, whole).mean(), F.binary_cross_entropy_with_logits(LOGITS, whole))
    logits = LOGITS.clone().requires_grad_()
    make(loss="asymmetric")(logits, TARGETS).sum().backward()
    assert (logits.grad[~KNOWN] == 0).all()


def test_smoothing_spreads_a_share_over_the_classes() -> None:
    soft = TARGETS.clamp(min=0) * 0.9 + 0.1 / 3
    wanted = F.binary_cross_entropy_with_logits(LOGITS, soft, reduction="none") * KNOWN
    torch.testing.assert_close(make()(LOGITS, TARGETS, label_smoothing=0.1), wanted.sum(1) / 3)
    one = make()(LOGITS[:, :1], TARGETS[:, :1], label_smoothing=0.1)
    alone = F.binary_cross_entropy_with_logits(LOGITS[:, 0], TARGETS[:, 0] * 0.9 + 0.05, reduction="none")
    torch.testing.assert_close(one, alone)


def test_focal_and_asymmetric_loss_by_hand() -> None:
    p, has = LOGITS.sigmoid(), TARGETS.clamp(min=0)
    focal = -(has * (1 - p) ** 2 * p.log() + (1 - has) * p**2 * (1 - p).log()) * KNOWN
    torch.testing.assert_close(make(loss="focal")(LOGITS, TARGETS), focal.sum(1) / 3)
    q = (p - 0.05).clamp(min=0)
    asymmetric = -(has * (1 - p) * p.log() + (1 - has) * q**4 * (1 - q).log()) * KNOWN
    torch.testing.assert_close(make(loss="asymmetric")(LOGITS, TARGETS), asymmetric.sum(1) / 3)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "asymmetric"])
def test_sure_answers_have_finite_slopes_and_mixtures_mix(loss: str) -> None:
    logits = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    for target in ([1.0, 0.0, 1.0], [0.0, 1.0, 0.0]):
        make(loss=loss)(logits, torch.tensor([target])).sum().backward()
    assert torch.isfinite(logits.grad).all()
    first, second = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 1.0]])
    found = make(loss=loss)(LOGITS[:1], 0.3 * first + 0.7 * second)
    torch.testing.assert_close(
        found, 0.3 * make(loss=loss)(LOGITS[:1], first) + 0.7 * make(loss=loss)(LOGITS[:1], second)
    )


def test_balanced_weights_give_both_sides_of_a_class_the_same_weight() -> None:
    weights = make(class_weights="balanced").weights
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([[100 / 180, 5.0, 1.0], [5.0, 100 / 180, 0.0]]))
    effective = make(class_weights="effective", beta=0.0).weights
    torch.testing.assert_close(effective, torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]))
    assert torch.isfinite(make(class_weights="effective")(LOGITS, TARGETS)).all()


def scored() -> tuple[torch.Tensor, torch.Tensor]:
    """Rounded probabilities, so that many are equal, and targets of which a tenth is unknown."""
    draw = torch.Generator().manual_seed(1)
    probabilities = (torch.rand(60, 4, generator=draw) * 10).round() / 10
    targets = (torch.rand(60, 4, generator=draw) < probabilities * 0.8).float()
    targets[torch.rand(60, 4, generator=draw) < 0.1] = -1
    targets[:, 3] = 0
    return probabilities, targets


def test_average_precision_is_that_of_scikit_learn() -> None:
    probabilities, targets = scored()
    found = RankedLabels(probabilities, targets).precisions()
    for label in range(3):
        known = targets[:, label] >= 0
        wanted = average_precision_score(targets[known, label].numpy(), probabilities[known, label].numpy())
        assert float(found[label]) == pytest.approx(wanted)
    assert found[3].isnan()
    times = torch.bincount(torch.randint(60, (60,), generator=torch.Generator().manual_seed(2)), minlength=60)
    weighted = RankedLabels(probabilities, targets).precisions(times.double())
    known = targets[:, 0] >= 0
    wanted = average_precision_score(targets[known, 0], probabilities[known, 0], sample_weight=times[known])
    assert float(weighted[0]) == pytest.approx(wanted)


def test_bounds_have_the_best_f1_that_any_has() -> None:
    probabilities, targets = scored()
    bounds = RankedLabels(probabilities, targets).bounds()
    for label in range(3):
        known = targets[:, label] >= 0
        own, truth = probabilities[known, label].numpy(), targets[known, label].numpy()
        best = max(f1_score(truth, own >= bound) for bound in np.linspace(0.005, 0.995, 199))
        assert f1_score(truth, own >= float(bounds[label])) == pytest.approx(best)
    assert bounds[3].isnan()


def test_bounds_of_classes_with_few_images_are_drawn_to_the_joint_one() -> None:
    probabilities, targets = scored()
    search = LabelBoundSearch()
    for part in (slice(0, 25), slice(25, 60)):
        search.update(probabilities[part].logit(eps=1e-6), targets[part])
    found, (joint, f1) = search.by_class(), search.best()
    own = RankedLabels(probabilities.logit(eps=1e-6).sigmoid(), targets).bounds()
    count = int((targets[:, 0] == 1).sum())
    wanted = (count * own[0].logit() + 10 * torch.tensor(joint).logit()) / (count + 10)
    assert found[0] == pytest.approx(float(wanted.sigmoid()), abs=1e-4)
    assert found[3] == pytest.approx(joint, abs=1e-5), "a class that no image has takes the bound of all together"
    assert 0 < f1 < 1


def test_scores_by_hand() -> None:
    metric = LabelMetric(torch.tensor([0.5, 0.5, 0.9]))
    for row in range(4):
        metric.update(LOGITS[row : row + 1], TARGETS[row : row + 1])
    values = metric.compute()
    # named: cat 1 1(0.0) 1 | dog 2 3 | bird 2 (0.98)
    assert float(values["map"]) == pytest.approx((5 / 6 + 0.5 + 1) / 3)
    assert values["f1_per_class"].tolist() == pytest.approx([0.8, 2 / 3, 2 / 3])
    assert float(values["micro_f1"]) == pytest.approx(2 * 4 / (8 + 2 + 1))
    assert float(values["macro_f1"]) == pytest.approx((0.8 + 2 / 3 + 2 / 3) / 3)
    assert float(values["exact_match"]) == pytest.approx(2 / 4)
    empty = LabelMetric(torch.tensor([0.5, 0.5, 0.5]))
    empty.update(LOGITS, torch.zeros(4, 3))
    assert float(empty.compute()["map"]) == 0


def findings() -> LabelFindings:
    found = LabelFindings(CLASSES, torch.tensor([0.5, 0.5, 0.9]))
    found.update(LOGITS[:2], TARGETS[:2])
    found.update(LOGITS[2:], TARGETS[2:])
    return found


def test_findings_by_hand() -> None:
    found = findings()
    assert [one.tolist() for one in found.shares()] == [[1, 2, 1, 0], [1, 2, 1, 1]]
    assert found.notes() == ["all right", "all right", "wrong: dog", "missed: bird; wrong: cat"]
    assert found.errors().argsort(descending=True)[:2].tolist() == [3, 2]
    assert found.numbers() == {"named": 6, "wrong": 2}
    trivial = found.trivial().scores
    assert trivial["map"] == pytest.approx((2 / 4 + 1 / 3 + 2 / 3) / 3)
    assert trivial["macro_f1"] == pytest.approx((4 / 6 + 2 / 4 + 4 / 5) / 3)
    assert trivial["micro_f1"] == pytest.approx(max(2 * 2 / (3 + 5), 2 * 4 / (7 + 5), 2 * 5 / (10 + 5)))
    assert "exact_match" not in trivial, "with unknown labels nobody knows which combination is frequent"
    rows, absent = found.tables()
    assert rows.rows[0][:2] == ["cat", 2]
    assert not absent.rows
    values = describe_findings(found)
    assert values["right"]["count"] == 4
    assert set(values["intervals"]) >= {"map", "micro_f1", "macro_f1", "exact_match"}
    whole = found.rescored(torch.arange(4))
    metric = LabelMetric(found.bounds)
    metric.update(LOGITS, TARGETS)
    assert whole == pytest.approx({name: float(metric.compute()[name]) for name in whole})
    nowhere = LabelFindings(CLASSES, torch.full((3,), 0.5))
    nowhere.update(torch.full((3, 3), torch.nan), torch.eye(3))
    assert describe_findings(nowhere)["trivial"]["scores"]["exact_match"] == pytest.approx(1 / 3)


def task(**given: Any) -> MultiLabelTask:
    made = create_task(
        "multilabel", "edgevit_nano_stride2", {"num_classes": 3, "image_size": 32}, TaskSpec(classes=CLASSES, **given)
    )
    assert isinstance(made, MultiLabelTask)
    return made.eval()


def test_answers_name_every_class_from_its_bound_on() -> None:
    one = task()
    answers = answers_of(one)
    found = answers.decode(LOGITS)
    assert [[name.label for name in own] for own in found] == [
        ["cat", "bird"],
        ["bird", "dog"],
        ["dog", "cat"],
        ["cat", "bird"],
    ]
    one.min_confidences = (0.9, 0.6, 0.7)
    found = answers.decode(LOGITS)
    assert [[name.label for name in own] for own in found] == [[], ["bird"], ["dog"], []]
    assert answers.to_dict(found[0]) == {"classes": []}
    assert answers.rows(found[1])[0][0] == "bird"
    assert one.decoding()["min_confidences"] == [0.9, 0.6, 0.7]
    assert one.agreement(LOGITS, LOGITS) == 1
    assert one.agreement(LOGITS, -LOGITS) < 1
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    drawn = answers.draw_difference(image, found[1], TARGETS[1])
    assert drawn.shape[0] == 3
    assert drawn.shape[1] > drawn.shape[2] / 2
    assert not torch.equal(drawn, answers.draw(image, found[1]))


def test_a_report_in_words() -> None:
    facts = {"right": {"count": 30, "of": 40}, "numbers": {"named": 33, "wrong": 3}}
    said = MultiLabelTask.in_words({"map": 0.5}, facts, "20 images")
    assert said == "On 20 images, it finds 30 of 40 labels. Of those that it names, 3 of 33 are wrong."
    assert MultiLabelTask.in_words({}, facts | {"numbers": {"named": 0}}, "2 images").endswith("it names none.")
    assert "mAP is 50.0 %" in MultiLabelTask.in_words({"map": 0.5}, {}, "2 images")


def test_tasks_that_cannot_be() -> None:
    backbone = create_model("edgevit_nano_stride2", num_classes=2, image_size=32)
    with pytest.raises(ConfigError, match="2 outputs for 3 classes"):
        MultiLabelTask(backbone, CLASSES)
    with pytest.raises(ConfigError, match="no classes to name"):
        MultiLabelTask(backbone, ())
    with pytest.raises(ConfigError, match=r"margin=1\.0"):
        MultiLabelOptions(margin=1.0)
