"""The exact allocation: a multiple-choice knapsack, one item of each class, the least loss within a capacity.

Dynamic programming over Pareto fronts (Nemhauser and Ullmann, 1969), with the linear relaxation as a bound in both
directions (Sinha and Zoltners, 1979): a partial solution that cannot become better than the best known one is dropped.
Costs may be any numbers, so that parameters and bytes are treated alike. The exact allocation judges the greedy one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import QuantizationError
from vitrail.quantization.mixed_precision.budget import (
    TOLERANCE,
    Allocation,
    Budget,
    Choice,
    limits_of,
    make_allocation,
)

MAX_STATES = 4_000_000
"""Partial solutions kept at once (about 100 bytes each); 200 tensors of a real model need a few thousand."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Class:
    """The items of one class that no other one beats: costs rise, losses fall."""

    index: int
    items: NDArray[np.intp]
    costs: Array
    losses: Array


@dataclass(frozen=True)
class _Relaxation:
    """The least loss of some classes as a function of the capacity, where items may be taken in part.

    It is piecewise linear and convex; at its corners, (``costs[i]``, ``losses[i]``), whole items are taken.
    """

    costs: Array
    losses: Array

    def below(self, capacity: Array) -> Array:
        """No whole solution within each capacity has a loss lower than this."""
        return np.interp(capacity, self.costs, self.losses)

    def above(self, capacity: Array) -> Array:
        """A whole solution within each capacity has this loss."""
        return self.losses[np.searchsorted(self.costs, capacity, side="right") - 1]


def allocate_exactly(choices: Sequence[Choice], budget: Budget) -> Allocation:
    """The allocation with the smallest sum of predicted losses within the budget.

    The bounds of a budget share no tensor, so that each is a knapsack of its own; tensors without a bound get their
    widest format.

    Raises:
        QuantizationError: the budget cannot be met (the message gives the smallest possible), or contradictory choices.
    """
    indices = [len(choice.bit_widths) - 1 for choice in choices]
    for limit in limits_of(choices, budget):
        items = solve(
            [limit.costs[i] for i in limit.members],
            [choices[i].repaired_loss for i in limit.members],
            limit.capacity,
        )
        assert items is not None  # limits_of has checked it
        for i, item in zip(limit.members, items, strict=True):
            indices[i] = item
    return make_allocation(choices, indices, budget)


def solve(
    costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]], capacity: float
) -> tuple[int, ...] | None:
    """The item of every class, with the least sum of losses such that the sum of costs is within the capacity.

    Args:
        costs, losses: one sequence a class, one number an item; finite.
        capacity: largest sum of costs over all classes, up to a relative excess of :data:`TOLERANCE`.

    Returns:
        Indices of items, one a class; among equally good solutions the cheapest. None if even the cheapest items of
        all classes cost more than the capacity.

    Raises:
        QuantizationError: more than :data:`MAX_STATES` partial solutions would have to be kept.
    """
    pairs = enumerate(zip(costs, losses, strict=True))
    classes = [_undominated(i, np.asarray(cost, float), np.asarray(loss, float)) for i, (cost, loss) in pairs]
    capacity += TOLERANCE * abs(capacity)
    if sum(float(group.costs[0]) for group in classes) > capacity:
        return None
    # those that move the cost most come first: the small ones, which fit anywhere, make the bounds of the rest tight
    classes.sort(key=lambda group: (group.costs[0] - group.costs[-1], group.index))
    suffixes = _relaxations(classes)
    cost, loss = np.zeros(1), np.zeros(1)
    # bounds are differences of sums: their rounding errors are relative to the largest of these
    slack = TOLERANCE * float(suffixes[0].losses[0])
    best = float(suffixes[0].above(np.array([capacity]))[0])
    steps: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for group, rest in zip(classes, suffixes[1:], strict=True):
        new_cost = (cost[:, None] + group.costs).ravel()
        new_loss = (loss[:, None] + group.losses).ravel()
        left = capacity - new_cost
        fits = np.flatnonzero(left >= rest.costs[0])
        new_cost, new_loss, left = new_cost[fits], new_loss[fits], left[fits]
        best = min(best, float((new_loss + rest.above(left)).min()))
        keep = np.flatnonzero(new_loss + rest.below(left) <= best + slack)
        keep = keep[_front(new_cost[keep], new_loss[keep])]
        if len(keep) > MAX_STATES:
            raise QuantizationError(
                f"the exact allocation keeps {len(keep)} partial solutions and the limit is {MAX_STATES}; "
                f"use the greedy one"
            )
        cost, loss = new_cost[keep], new_loss[keep]
        steps.append(np.divmod(fits[keep], len(group.costs)))
    return _backtrack(classes, steps, int(np.lexsort((cost, loss))[0]))


def _undominated(index: int, costs: Array, losses: Array) -> _Class:
    items = np.lexsort((losses, costs))
    items = items[_front(costs[items], losses[items])]
    return _Class(index, items, costs[items], losses[items])


def _front(costs: Array, losses: Array) -> NDArray[np.intp]:
    """Indices of the points that no other one beats in both, costs rising; of equal points the first."""
    order = np.lexsort((losses, costs))
    falling = np.minimum.accumulate(losses[order])
    return order[np.flatnonzero(np.r_[True, losses[order][1:] < falling[:-1]])]


def _relaxations(classes: Sequence[_Class]) -> list[_Relaxation]:
    """Of the classes from each one on, and at the end of none."""
    relaxations = [_Relaxation(np.zeros(1), np.zeros(1))]
    cost, loss, spans, drops = 0.0, 0.0, np.zeros(0), np.zeros(0)
    for group in reversed(classes):
        corners = _hull(group.costs, group.losses)
        cost, loss = cost + float(group.costs[0]), loss + float(group.losses[0])
        spans = np.r_[spans, np.diff(group.costs[corners])]
        drops = np.r_[drops, -np.diff(group.losses[corners])]
        order = np.argsort(-drops / spans, kind="stable")  # the steepest first
        spans, drops = spans[order], drops[order]
        relaxations.append(
            _Relaxation(cost + np.r_[0.0, np.cumsum(spans)], np.maximum(loss - np.r_[0.0, np.cumsum(drops)], 0.0))
        )
    return relaxations[::-1]


def _hull(costs: Array, losses: Array) -> list[int]:
    """The corners of the lower convex hull of a front."""
    corners: list[int] = []
    for i in range(len(costs)):
        while len(corners) > 1:
            a, b = corners[-2], corners[-1]
            if (losses[b] - losses[a]) * (costs[i] - costs[a]) < (losses[i] - losses[a]) * (costs[b] - costs[a]):
                break
            corners.pop()
        corners.append(i)
    return corners


def _backtrack(
    classes: Sequence[_Class], steps: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]], last: int
) -> tuple[int, ...]:
    indices = [0] * len(classes)
    for group, (parents, items) in zip(reversed(classes), reversed(steps), strict=True):
        indices[group.index] = int(group.items[items[last]])
        last = int(parents[last])
    return tuple(indices)
