from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from vitrail.core.errors import DataError
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, ImageSet, load_data
from vitrail.evaluation import ClassificationReport, evaluate

PREPROCESSING = Preprocessing(image_size=(48, 48))
TEST = load_data(DataConfig()).test.sample(40, 0)
CLASSES = tuple("0123456789")


def oracle(logits: Tensor) -> Callable[[Tensor], Tensor]:
    """A predictor that gives prepared logits, in the order of the images."""
    position = 0

    def predict(images: Tensor) -> Tensor:
        nonlocal position
        position += len(images)
        return logits[position - len(images) : position]

    return predict


def measure(
    logits: Tensor, images: ImageSet = TEST, classes: tuple[str, ...] = CLASSES, batch_size: int = 16
) -> ClassificationReport:
    return evaluate(oracle(logits), images, PREPROCESSING, classes, batch_size=batch_size)


def one_hot(labels: Tensor, scale: float = 30.0) -> Tensor:
    return nn.functional.one_hot(labels, 10).float() * scale


def test_a_perfect_predictor() -> None:
    report = measure(one_hot(TEST.labels))
    assert (report.top1, report.top5, report.num_images) == (1, 1, 40)
    assert report.loss < 1e-6
    assert report.ece < 1e-6
    assert all((row.precision, row.recall, row.f1) == (1, 1, 1) for row in report.per_class)
    assert [row.support for row in report.per_class] == TEST.labels.bincount(minlength=10).tolist()
    assert torch.equal(torch.tensor(report.confusion), torch.diag(TEST.labels.bincount(minlength=10)))


def test_top5_is_counted_where_the_first_batch_is_all_right() -> None:
    logits = one_hot(TEST.labels)
    logits[16:] += 2 * one_hot((TEST.labels[16:] + 1) % 10)  # from the second batch on, the answer is the second guess
    report = measure(logits)
    assert (report.top1, report.top5) == pytest.approx((16 / 40, 1))


def test_figures_by_hand() -> None:
    records = [replace(record, label=label) for record, label in zip(TEST.records[:4], (0, 0, 1, 2), strict=True)]
    images = replace(TEST, records=records)
    probabilities = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.6, 0.2, 0.2]])
    report = measure(probabilities.log(), images, ("a", "b", "c"), batch_size=3)
    assert report.top1 == 0.5
    assert report.top5 == 1.0
    assert report.confusion == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert report.loss == pytest.approx(-torch.tensor([0.8, 0.3, 0.7, 0.2]).log().mean().item())
    a, b, c = report.per_class
    assert (a.precision, a.recall, a.f1, a.support) == (0.5, 0.5, 0.5, 2)
    assert (b.precision, b.recall, b.f1, b.support) == (0.5, 1.0, pytest.approx(2 / 3), 1)
    assert (c.precision, c.recall, c.f1, c.support) == (0, 0, 0, 1)
    # four confidences: .8 right, .6 wrong, .7 right, .6 wrong; .6 and .6 share a bin
    assert report.ece == pytest.approx((0.2 + 0.3 + 2 * 0.6) / 4, abs=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_bins_and_matrix_agree_with_the_headline(seed: int, scale: float) -> None:
    logits = torch.randn(40, 10, generator=torch.Generator().manual_seed(seed)) * scale
    logits[::2] += one_hot(TEST.labels, scale)[::2]
    report = measure(logits)
    assert sum(part.count for part in report.calibration) == report.num_images == sum(map(sum, report.confusion))
    gap = sum(part.count * abs(part.accuracy - part.confidence) for part in report.calibration) / 40
    assert report.ece == pytest.approx(gap, abs=1e-4)
    assert report.top1 == pytest.approx(sum(report.confusion[i][i] for i in range(10)) / 40)
    assert report.top1 == pytest.approx(sum(part.count * part.accuracy for part in report.calibration) / 40)
    assert report.top5 >= report.top1


def test_the_batch_size_changes_nothing() -> None:
    logits = torch.randn(40, 10)
    first, second = measure(logits, batch_size=40), measure(logits, batch_size=7)
    assert (first.confusion, first.top5) == (second.confusion, second.top5)
    assert (first.loss, first.ece) == pytest.approx((second.loss, second.ece))


def test_the_predictor_gets_normalised_images() -> None:
    seen = []

    def predictor(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.zeros(len(images), 10)

    evaluate(predictor, TEST, PREPROCESSING, CLASSES, batch_size=40)
    expected = PREPROCESSING.normalize(torch.stack([TEST[i][0] for i in range(40)]))
    torch.testing.assert_close(seen[0], expected)


def test_a_module_is_evaluated_in_evaluation_mode_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(3 * 48 * 48, 10))
    model[2].eval()
    first = evaluate(model, TEST, PREPROCESSING, CLASSES)
    assert evaluate(model, TEST, PREPROCESSING, CLASSES).loss == first.loss
    assert [module.training for module in model] == [True, True, False]
    assert model.training


def test_report_survives_json() -> None:
    report = measure(torch.randn(40, 10))
    values = json.loads(json.dumps(report.to_dict() | {"split": "test"}))
    assert ClassificationReport.from_dict(values) == report


def test_what_does_not_belong_together_is_an_error() -> None:
    with pytest.raises(DataError, match=r"outputs of shape \(7,\) an image, but the data has 10 classes"):
        measure(torch.zeros(40, 7))
    with pytest.raises(DataError, match="label 9, but there are only 3 classes"):
        measure(torch.zeros(40, 3), classes=("a", "b", "c"))
    with pytest.raises(DataError, match="no images"):
        measure(torch.zeros(0, 10), TEST.subset([]))
