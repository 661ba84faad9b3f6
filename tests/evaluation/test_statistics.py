"""Tests and intervals against values that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from vitrail.core.errors import ConfigError
from vitrail.evaluation import bootstrap, mcnemar_exact

ANSWERS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def test_mcnemar_by_hand() -> None:
    """Five images that only the first has right: a fair coin falls on one side five times, either side, 2 / 2**5."""
    first = np.array([True] * 5 + [True] * 90 + [False] * 5)
    second = np.array([False] * 5 + [True] * 90 + [False] * 5)
    assert mcnemar_exact(first, second) == 2 / 32
    mixed = second.copy()
    mixed[-2:] = True  # 5 against 2: 2 * (1 + 7 + 21) / 128
    assert mcnemar_exact(first, mixed) == pytest.approx(2 * 29 / 128)


@given(ANSWERS)
def test_mcnemar_is_a_symmetric_probability(answers: list[tuple[bool, bool]]) -> None:
    first, second = np.array(answers).T
    p = mcnemar_exact(first, second)
    assert 0 < p <= 1
    assert p == mcnemar_exact(second, first)
    assert mcnemar_exact(first, first) == 1


def test_mcnemar_needs_the_same_images() -> None:
    with pytest.raises(ConfigError, match="same images"):
        mcnemar_exact(np.ones(3, bool), np.ones(4, bool))


def test_an_interval_of_one_value_is_a_point() -> None:
    interval = bootstrap(np.full((3, 20), 0.25))
    assert interval.low == pytest.approx(0.25)
    assert interval.high == pytest.approx(0.25)
    assert interval.mean == 0.25


def test_an_interval_has_the_width_of_the_normal_approximation() -> None:
    values = np.zeros((1, 400))
    values[0, :120] = 1
    interval = bootstrap(values)
    half = 1.96 * (0.3 * 0.7 / 400) ** 0.5
    assert interval.low == pytest.approx(0.3 - half, abs=0.01)
    assert interval.high == pytest.approx(0.3 + half, abs=0.01)
    assert bootstrap(values) == interval
    assert bootstrap(values, seed=1) != interval


def test_seeds_that_differ_widen_an_interval() -> None:
    """All images right with one seed and wrong with the other: images alone would leave no doubt."""
    interval = bootstrap(np.array([[1.0] * 50, [0.0] * 50]))
    assert (interval.low, interval.mean, interval.high) == pytest.approx((0, 0.5, 1))


def test_no_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        bootstrap(np.zeros((0, 3)))
