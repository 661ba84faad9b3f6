"""Losses for uneven classes, by hand and against PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from vitrail.tasks.class_loss import ClassLoss, class_loss

COUNTS = torch.tensor([90, 9, 1])
LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3], [-3.0, 4.0, 0.0], [1.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 2, 1, 2])


def make(**given: Any) -> ClassLoss:
    plain: dict[str, Any] = {"loss": "cross_entropy", "class_weights": None, "beta": 0.999, "gamma": 2.0, "tau": 1.0}
    return class_loss(COUNTS, **(plain | given))


VARIETIES = [
    {},
    {"class_weights": "balanced"},
    {"class_weights": "effective"},
    {"loss": "focal"},
    {"loss": "focal", "gamma": 0.5, "class_weights": "balanced"},
    {"loss": "logit_adjusted"},
]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_anything_it_is_the_cross_entropy(smoothing: float) -> None:
    found = make()(LOGITS, LABELS, label_smoothing=smoothing).mean()
    torch.testing.assert_close(found, F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing))


def test_balanced_weights_are_one_over_the_number_of_images() -> None:
    weights = make(class_weights="balanced").weights
    assert weights is not None
    torch.testing.assert_close(weights, 100 / (3 * COUNTS))  # scikit-learn's "balanced"
    ours = make(class_weights="balanced")(LOGITS, LABELS)
    torch.testing.assert_close(ours, F.cross_entropy(LOGITS, LABELS, weight=weights, reduction="none"))


def test_effective_weights_by_hand() -> None:
    weights = make(class_weights="effective", beta=0.9).weights
    assert weights is not None
    raw = [(1 - 0.9) / (1 - 0.9**n) for n in (90, 9, 1)]
    mean = (90 * raw[0] + 9 * raw[1] + raw[2]) / 100
    torch.testing.assert_close(weights, torch.tensor([one / mean for one in raw]))
    nothing = make(class_weights="effective", beta=0.0).weights
    torch.testing.assert_close(nothing, torch.ones(3))
    almost, balanced = make(class_weights="effective", beta=1 - 1e-9).weights, make(class_weights="balanced").weights
    torch.testing.assert_close(almost, balanced, rtol=1e-4, atol=0)


@pytest.mark.parametrize("weights", ["balanced", "effective"])
def test_a_class_without_images(weights: Any) -> None:
    found = class_loss(
        torch.tensor([5, 0, 5]), loss="logit_adjusted", class_weights=weights, beta=0.99, gamma=2.0, tau=1.0
    )
    assert found.weights is not None
    torch.testing.assert_close(found.weights, torch.tensor([1.0, 0.0, 1.0]))
    assert torch.isfinite(found(LOGITS, LABELS, label_smoothing=0.1)).all()


def test_focal_loss_by_hand() -> None:
    p = LOGITS.softmax(1)[range(4), LABELS]
    torch.testing.assert_close(make(loss="focal")(LOGITS, LABELS), -((1 - p) ** 2) * p.log())
    torch.testing.assert_close(
        make(loss="focal", gamma=0.0)(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, reduction="none")
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_loss_of_a_sure_answer_has_a_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0], [-200.0, 0.0, 0.0]], requires_grad=True)
    make(loss="focal", gamma=gamma)(logits, torch.tensor([0, 0])).mean().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_adjusted_loss_by_hand() -> None:
    shifted = LOGITS + 2 * (COUNTS / 100).log()
    found = make(loss="logit_adjusted", tau=2.0)(LOGITS, LABELS)
    torch.testing.assert_close(found, F.cross_entropy(shifted, LABELS, reduction="none"))


@pytest.mark.parametrize("given", VARIETIES, ids=str)
def test_mixed_images_have_the_mixture_of_their_losses(given: dict[str, Any]) -> None:
    loss = make(**given)
    other = torch.tensor([1, 0, 2, 2])
    soft = 0.7 * F.one_hot(LABELS, 3) + 0.3 * F.one_hot(other, 3)
    mixture = 0.7 * loss(LOGITS, LABELS, label_smoothing=0.1) + 0.3 * loss(LOGITS, other, label_smoothing=0.1)
    torch.testing.assert_close(loss(LOGITS, soft, label_smoothing=0.1), mixture)


def test_ignored_rows_lose_nothing() -> None:
    labels = torch.tensor([0, 255, 1, 255])
    found = make(class_weights="balanced", loss="focal")(LOGITS, labels, ignore=255)
    assert found[[1, 3]].tolist() == [0, 0]
    assert (found[[0, 2]] > 0).all()
