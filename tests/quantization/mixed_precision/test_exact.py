"""The knapsack on its own: costs that need not rise, items that beat each other, capacities that just fit."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings, strategies as st

from vitrail.core.errors import QuantizationError
from vitrail.quantization.mixed_precision import exact

ITEMS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=200)
@given(st.lists(ITEMS, min_size=1, max_size=5), st.integers(0, 30))
def test_it_is_as_good_as_trying_everything(classes: list[list[tuple[int, int]]], capacity: int) -> None:
    costs = [[cost for cost, _ in items] for items in classes]
    losses = [[loss for _, loss in items] for items in classes]
    within = [chosen for chosen in itertools.product(*classes) if sum(cost for cost, _ in chosen) <= capacity]
    found = exact.solve(costs, losses, capacity)
    if not within:
        assert found is None
        return
    assert found is not None
    total = sum(row[i] for row, i in zip(costs, found, strict=True))
    loss = sum(row[i] for row, i in zip(losses, found, strict=True))
    assert total <= capacity
    # the least loss, and the cheapest way to it
    assert (loss, total) == min((sum(item[1] for item in chosen), sum(item[0] for item in chosen)) for chosen in within)


def test_too_large_a_problem_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "MAX_STATES", 2)
    # weights as good as they are heavy: no bound tells the subsets apart
    costs = [[100.0 + i * i, 0.0] for i in range(12)]
    with pytest.raises(QuantizationError, match=r"partial solutions and the limit is 2; use the greedy one"):
        exact.solve(costs, [row[::-1] for row in costs], 650)
