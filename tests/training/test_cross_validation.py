"""Honest answers: an image is answered by what has not seen it, and a curve says no more than it knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vitrail.training import cross_validation
from vitrail.training.cross_validation import UNJUDGED, CurvePoint, cross_validate, learning_curve, trend_of
from vitrail.training.linear_probe import LinearHead


def clusters(counts: list[int], spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(len(counts), 12))
    labels = np.repeat(np.arange(len(counts)), counts)
    features = centres[labels] + spread * draw.normal(size=(len(labels), 12))
    return features.astype(np.float32), labels, np.arange(len(labels))


@pytest.fixture
def _chosen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_validation, "NESTED_UP_TO", 0)


@pytest.mark.usefixtures("_chosen_once")
def test_what_is_easy_is_right_and_what_is_chance_is_chance() -> None:
    features, labels, groups = clusters([20, 20, 20], 0.1)
    found = cross_validate(features, labels, 3, groups=groups, strength=0.1)
    assert found.right(found.linear).shape == (2, 60)
    assert found.right(found.linear).mean() == found.right(found.nearest).mean() == 1
    assert (found.confidence > 0.5).all()
    shuffled = np.random.default_rng(0).permutation(labels)
    noise = cross_validate(features, shuffled, 3, groups=groups, strength=0.1, repetitions=1)
    assert noise.right(noise.linear).mean() < 0.6
    assert noise.right(noise.nearest).mean() < 0.6


def test_few_images_have_their_regularisation_chosen_in_every_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, groups = clusters([6, 6], 60.0)
    seen: list[int] = []
    fit = cross_validation.fit_linear_head

    def watched(*args: Any, **kwargs: Any) -> LinearHead:
        seen.append(len(kwargs["strengths"]))
        return fit(*args, **kwargs)

    monkeypatch.setattr(cross_validation, "fit_linear_head", watched)
    cross_validate(features, labels, 2, groups=groups, strength=0.1, repetitions=1)
    monkeypatch.setattr(cross_validation, "NESTED_UP_TO", 11)
    cross_validate(features, labels, 2, groups=groups, strength=0.1, repetitions=1)
    assert seen == [6] * 5 + [1] * 5


@pytest.mark.usefixtures("_chosen_once")
def test_copies_do_not_help() -> None:
    """Each image twice, with labels by chance: whoever sees the copy is right."""
    features, labels, _ = clusters([40, 40], 1.0)
    labels = np.random.default_rng(0).permutation(labels)
    twice, same = np.concatenate([features, features]), np.concatenate([labels, labels])
    alone = np.arange(160)
    copies = np.concatenate([np.arange(80)] * 2)
    leak = cross_validate(twice, same, 2, groups=alone, strength=1.0, repetitions=1)
    honest = cross_validate(twice, same, 2, groups=copies, strength=1.0, repetitions=1)
    assert leak.right(leak.nearest).mean() > 0.9
    assert honest.right(honest.nearest).mean() < 0.65


@pytest.mark.usefixtures("_chosen_once")
def test_the_only_image_of_a_class_is_not_judged() -> None:
    features, labels, groups = clusters([1, 8, 8], 0.1)
    found = cross_validate(features, labels, 3, groups=groups, strength=0.1, repetitions=1)
    assert found.linear[0, 0] == UNJUDGED
    assert found.judged.sum() == 16
    single = cross_validate(*clusters([1, 1], 0.1)[:2], 2, groups=np.arange(2), strength=0.1)
    assert not single.judged.any()
    assert single.neighbours == 0
    assert learning_curve(*clusters([1, 1], 0.1)[:2], 2, groups=np.arange(2), strength=0.1) == []


@pytest.mark.parametrize(("count", "wanted"), [(50, [5, 10, 20, 40]), (8, [1, 2, 4, 6.4])])
def test_the_curve_has_doubling_numbers_of_labels(count: int, wanted: list[float]) -> None:
    features, labels, groups = clusters([count] * 2, 1.5)
    curve = learning_curve(features, labels, 2, groups=groups, strength=0.1)
    assert [point.per_class for point in curve] == pytest.approx(wanted)
    assert all(len(point.top1) == 5 for point in curve)
    assert curve[-1].mean >= curve[0].mean


def point(per_class: float, *top1: float) -> CurvePoint:
    return CurvePoint(per_class=per_class, num_images=round(per_class), top1=top1)


def test_a_trend_is_the_gain_of_the_last_doubling() -> None:
    trend = trend_of([point(5, 0.5, 0.5, 0.5), point(10, 0.6, 0.61, 0.62), point(40, 0.7, 0.71, 0.72)])
    assert trend is not None
    assert trend.gain == pytest.approx(0.05)  # two doublings brought 10 points
    assert trend.low == pytest.approx(trend.high)
    flat = trend_of([point(10, 0.6, 0.7, 0.65), point(20, 0.7, 0.6, 0.65)])
    assert flat is not None
    assert flat.low < 0 < flat.high
    assert trend_of([point(10, 0.6, 0.7), point(12, 0.7, 0.6)]) is None
    assert trend_of([point(10, 0.5), point(20, 0.6)]) is None
    assert trend_of([]) is None
