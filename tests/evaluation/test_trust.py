"""Probabilities that are true, sets that keep their promise, scores that tell strangers, tests that do not cry wolf."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from vitrail.core.errors import ConfigError, DataError
from vitrail.evaluation.trust.class_sets import (
    bound_of,
    check_sets,
    coverage_spread,
    fewest_images,
    misfits,
    sets_of,
)
from vitrail.evaluation.trust.data_drift import Seen, answer_p, differences, feature_p
from vitrail.evaluation.trust.outlier_score import OutlierScore, fit_outlier_score
from vitrail.evaluation.trust.temperature import (
    bins_of,
    calibration_error,
    fit_temperature,
    mean_loss,
    probabilities_of,
)

Array = NDArray[np.float64]


def drawn(count: int, seed: int, *, classes: int = 5, sharpness: float = 1.0) -> tuple[Array, NDArray[np.int64]]:
    """Logits, and labels that are drawn by the probabilities of these logits over ``sharpness``."""
    random = np.random.default_rng(seed)
    true = random.normal(size=(count, classes)) * 1.5
    shares = probabilities_of(true).cumsum(axis=1)
    return true * sharpness, (random.random((count, 1)) > shares).sum(axis=1).clip(max=classes - 1)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_logits_too_sharp(sharpness: float) -> None:
    logits, labels = drawn(5000, 0, sharpness=sharpness)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(sharpness, rel=0.1)
    assert mean_loss(logits / found, labels) <= mean_loss(logits, labels) + 1e-6
    error = calibration_error(probabilities_of(logits, found), labels)
    assert error.low <= error.mean < 0.03
    if sharpness == 3.0:
        assert calibration_error(probabilities_of(logits), labels).low > 0.1


def test_three_right_images_make_no_answer_certain() -> None:
    logits = np.array([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0]])
    assert 0.4 < fit_temperature(logits, np.array([0, 1, 0])) < 1
    assert fit_temperature(np.zeros((3, 2)), np.array([0, 1, 0])) == pytest.approx(1, abs=0.01)


def test_the_error_is_the_mean_gap_of_the_bins() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    # two bins: 0.9 against one of two right, and 0.65 and 0.6 against both right
    assert calibration_error(probabilities, labels).mean == pytest.approx((2 * 0.4 + 0.35 + 0.4) / 4)
    assert sum(one.count for one in bins_of(probabilities, labels)) == 4


@pytest.mark.parametrize("logits", [np.zeros((0, 3)), np.array([[np.nan, 1.0]])])
def test_a_temperature_needs_finite_logits(logits: Array) -> None:
    with pytest.raises(DataError):
        fit_temperature(logits, np.zeros(len(logits), np.int64))


@pytest.mark.parametrize("method", ["lac", "raps"])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_hold_the_right_class_as_often_as_stated(method: str, coverage: float) -> None:
    """Within 1.5 points on the average over calibration sets; a single one is off by chance."""
    covered = []
    for seed in range(60):
        logits, labels = drawn(700, seed, classes=8)
        fits = misfits(probabilities_of(logits), method)  # type: ignore[arg-type]
        bound = bound_of(fits[np.arange(200), labels[:200]], coverage)
        covered.append(check_sets(sets_of(fits[200:], bound), labels[200:]).coverage)
    assert np.mean(covered) == pytest.approx(coverage, abs=0.015)
    low, high = coverage_spread(200, coverage)
    inside = np.mean([low - 0.03 < one < high + 0.03 for one in covered])  # 500 images of their own have a spread, too
    assert inside > 0.9


def test_lac_sets_are_the_smallest_and_raps_sets_are_never_empty() -> None:
    logits, labels = drawn(1000, 1, sharpness=1.0)
    found = {}
    for method in ("lac", "raps"):
        fits = misfits(probabilities_of(logits), method)  # type: ignore[arg-type]
        found[method] = check_sets(sets_of(fits, bound_of(fits[np.arange(1000), labels], 0.5)), labels)
    assert found["lac"].mean_size <= found["raps"].mean_size
    assert found["lac"].empty > 0
    assert found["raps"].empty == 0
    assert sum(found["raps"].sizes) == found["raps"].num_images == 1000


def test_too_few_images_put_every_class_into_a_set() -> None:
    assert fewest_images(0.9) == 9
    assert bound_of(np.linspace(0, 1, 8), 0.9) == math.inf
    assert bound_of(np.linspace(0, 1, 9), 0.9) == 1.0
    assert coverage_spread(8, 0.9) == (1.0, 1.0)
    low, high = coverage_spread(30, 0.9)
    assert 0.75 < low < 0.82
    assert 0.95 < high < 1


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, math.nan])
def test_a_coverage_is_a_share(coverage: float) -> None:
    with pytest.raises(ConfigError, match="coverage"):
        bound_of(np.zeros(5), coverage)


def test_strangers_have_higher_scores_than_unseen_images_of_the_classes() -> None:
    random = np.random.default_rng(0)
    means = random.normal(size=(4, 12)) * 4
    labels = np.repeat(np.arange(4), 30)
    features = (means[labels] + random.normal(size=(120, 12))).astype(np.float32)
    again = (means[labels] + random.normal(size=(120, 12))).astype(np.float32)
    far = (random.normal(size=(50, 12)) * 4).astype(np.float32)
    score = fit_outlier_score(features, labels)
    assert np.quantile(score(far), 0.1) > np.quantile(score(again), 0.95)
    logits = again @ means.T / 10
    both = score.scaled(again, logits)
    assert both(again, logits).mean() < both(far, far @ means.T / 10).mean()
    copy = OutlierScore.from_arrays(both.arrays)
    assert np.array_equal(copy(far, far @ means.T), both(far, far @ means.T))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_score_of_few_or_equal_images_is_finite(count: int) -> None:
    features = np.ones((count, 6), np.float32)
    score = fit_outlier_score(features, np.arange(count) % 2)
    values = score(np.array([[1.0] * 6, [2.0] * 6], np.float32))
    assert np.isfinite(values).all()
    assert values[1] > values[0]


def seen(random: np.random.Generator, count: int, *, light: float = 0.5, shift: float = 0.0) -> Seen:
    return Seen(
        features=(random.normal(size=(count, 6)) + shift).astype(np.float32),
        numbers={"brightness": random.normal(light, 0.1, count), "size": np.full(count, 64.0)},
        answers=random.integers(0, 3, count),
    )


def test_like_images_are_rarely_called_different() -> None:
    """At most 5 % of draws; seven or more of 60 would have a probability below 3 %."""
    random = np.random.default_rng(0)
    alarms = 0
    for seed in range(60):
        found = differences(seen(random, 60), seen(random, 30), num_classes=3, seed=seed)
        assert [one.name for one in found] == ["features", "answers", "brightness", "size"]
        alarms += any(one.found for one in found)
    assert alarms <= 6


@pytest.mark.parametrize(("change", "name"), [({"light": 0.3}, "brightness"), ({"shift": 1.0}, "features")])
def test_other_images_are_called_different_in_what_is_different(change: dict[str, float], name: str) -> None:
    random = np.random.default_rng(1)
    found = differences(seen(random, 60), seen(random, 30, **change), num_classes=3)
    assert [one.name for one in found if one.found] == [name]


def test_statistics_without_any_spread_are_no_difference() -> None:
    assert feature_p(np.ones((12, 4), np.float32), np.ones((12, 4), np.float32)) == 1.0
    assert answer_p(np.array([12, 0]), np.array([30, 0])) == 1.0
    assert answer_p(np.array([12, 0]), np.array([0, 30])) == pytest.approx(0.001)
