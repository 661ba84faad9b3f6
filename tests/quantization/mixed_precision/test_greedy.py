"""Bit widths under a budget: within it, the exact ones as good as trying everything, the greedy ones never better."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from vitrail.core.errors import QuantizationError
from vitrail.quantization.mixed_precision.budget import Allocation, Budget, Choice, limits_of, make_allocation
from vitrail.quantization.mixed_precision.exact import allocate_exactly
from vitrail.quantization.mixed_precision.greedy import allocate_greedily

WIDTHS = (2, 3, 4, 6, 8)


@st.composite
def choices(draw: st.DrawFn, most: int = 6) -> list[Choice]:
    """Tensors whose predictions are noisy: wider is not always better, and equals occur."""
    made = []
    for index in range(draw(st.integers(1, most))):
        widths = tuple(sorted(draw(st.sets(st.sampled_from(WIDTHS), min_size=1))))
        loss = draw(
            st.lists(st.one_of(st.integers(0, 3), st.floats(0, 10)), min_size=len(widths), max_size=len(widths))
        )
        made.append(
            Choice(
                name=f"blocks.{index}:weight",
                count=draw(st.integers(1, 50)),
                is_weight=draw(st.booleans()),
                bit_widths=widths,
                loss=tuple(map(float, loss)),
            )
        )
    return made


def every_allocation(choices: Sequence[Choice], budget: Budget) -> list[Allocation]:
    """All that are within the budget, found by trying everything."""
    limits = limits_of(choices, budget)
    products = itertools.product(*(range(len(choice.bit_widths)) for choice in choices))
    return [make_allocation(choices, p, budget) for p in products if not any(limit.exceeded(p) for limit in limits)]


def extremes(choices: Sequence[Choice], kind: str) -> tuple[float, float]:
    """The least and the largest budget that make a difference."""
    if kind == "average_bits":
        pairs = []
        for weights in (True, False):
            some = [c for c in choices if c.is_weight == weights]
            total = sum(c.count for c in some) or 1
            pairs.append([sum(c.count * pick(c.bit_widths) for c in some) / total for pick in (min, max)])
        return max(low for low, _ in pairs), max(high for _, high in pairs)
    rows = [c.stored_bytes for c in choices]
    return math.fsum(map(min, rows)), math.fsum(map(max, rows))


@st.composite
def problems(draw: st.DrawFn, most: int = 6) -> tuple[list[Choice], Budget, Budget]:
    """Tensors, and two budgets of which the first is not larger."""
    tensors = draw(choices(most))
    kind = draw(st.sampled_from(["average_bits", "max_size_bytes"]))
    low, high = extremes(tensors, kind)
    values = sorted(low + (high - low) * draw(st.floats(0, 1)) for _ in range(2))
    if kind == "max_size_bytes":
        tight, loose = (Budget(max_size_bytes=math.ceil(value) + 1) for value in values)
    else:
        tight, loose = (Budget(average_bits=value * (1 + 1e-9)) for value in values)
    return tensors, tight, loose


def cost(allocation: Allocation, choices: Sequence[Choice], budget: Budget) -> float:
    """What the budget bounds, computed from the widths alone."""
    if budget.average_bits is not None:
        return max(allocation.average_weight_bits, allocation.average_activation_bits)
    return sum(math.ceil(c.count * allocation.bit_widths[c.name] / 8) for c in choices if c.is_weight)


def allowed(budget: Budget) -> float:
    return budget.average_bits or budget.max_size_bytes or 0


@settings(deadline=None, max_examples=60)
@given(problems())
def test_both_stay_within_the_budget(problem: tuple[list[Choice], Budget, Budget]) -> None:
    tensors, budget, _ = problem
    for allocation in (allocate_greedily(tensors, budget), allocate_exactly(tensors, budget)):
        assert list(allocation.bit_widths) == [c.name for c in tensors]
        assert all(allocation.bit_widths[c.name] in c.bit_widths for c in tensors)
        assert cost(allocation, tensors, budget) <= allowed(budget) * (1 + 1e-11)


@settings(deadline=None, max_examples=60)
@given(problems(most=5))
def test_the_exact_one_is_the_best_of_all_and_the_greedy_one_not_better(
    problem: tuple[list[Choice], Budget, Budget],
) -> None:
    tensors, budget, _ = problem
    exact = allocate_exactly(tensors, budget)
    best = min(allocation.predicted_loss for allocation in every_allocation(tensors, budget))
    assert exact.predicted_loss == pytest.approx(best, rel=1e-9, abs=1e-10)
    assert allocate_greedily(tensors, budget).predicted_loss >= exact.predicted_loss * (1 - 1e-9) - 1e-10


@settings(deadline=None, max_examples=60)
@given(problems())
def test_a_larger_budget_never_costs_accuracy(problem: tuple[list[Choice], Budget, Budget]) -> None:
    tensors, tight, loose = problem
    for allocate in (allocate_greedily, allocate_exactly):
        assert allocate(tensors, loose).predicted_loss <= allocate(tensors, tight).predicted_loss * (1 + 1e-9) + 1e-10


@settings(deadline=None, max_examples=50)
@given(problems())
def test_the_steps_lead_from_the_widest_formats_to_the_allocation(problem: tuple[list[Choice], Budget, Budget]) -> None:
    tensors, budget, _ = problem
    allocation = allocate_greedily(tensors, budget)
    widths = {c.name: max(c.bit_widths) for c in tensors}
    loss = -1.0
    for step in allocation.steps:
        assert widths[step.name] == step.from_bits > step.to_bits
        assert step.criterion >= 0
        assert step.predicted_loss >= loss
        widths[step.name], loss = step.to_bits, step.predicted_loss
    assert widths == allocation.bit_widths
    if allocation.steps:
        assert allocation.steps[-1].predicted_loss == allocation.predicted_loss


def tensor(name: str, count: int, loss: Sequence[float], *, is_weight: bool = True) -> Choice:
    return Choice(name=name, count=count, is_weight=is_weight, bit_widths=(2, 4, 8), loss=tuple(loss))


def test_the_criterion_weighs_loss_by_what_is_saved() -> None:
    # the same loss for ten times the parameters: the large tensor gives way; ten times the loss: a draw, by order
    large, small = tensor("large", 100, (9, 1, 0)), tensor("small", 10, (9, 1, 0))
    budget = Budget(average_bits=5)
    assert allocate_greedily([small, large], budget).steps[0].name == "large"
    equal = tensor("equal", 10, (9, 0.1, 0))
    assert allocate_greedily([equal, large], budget).steps[0].name == "equal"
    assert allocate_greedily([large, equal], budget).steps[0].name == "large"
    step = allocate_greedily([large, small], budget).steps[0]
    assert step.criterion == pytest.approx(1 / (100 * 4 / 110))


def test_weights_and_activations_keep_to_the_average_each() -> None:
    weight = tensor("fc:weight", 1000, (0.1, 0.01, 0))
    activations = [tensor(f"fc{i}:input", 10, (5.0, 1.0, 0), is_weight=False) for i in range(2)]
    allocation = allocate_greedily([weight, *activations], Budget(average_bits=6))
    assert (allocation.average_weight_bits, allocation.average_activation_bits) == (4, 6)
    assert allocation.bit_widths == {"fc:weight": 4, "fc0:input": 4, "fc1:input": 8}
    assert allocation.size_bytes == 500


def test_a_size_budget_leaves_activations_alone() -> None:
    tensors = [tensor("fc:weight", 1000, (0.1, 0.01, 0)), tensor("fc:input", 1000, (0, 0, 0), is_weight=False)]
    for allocate in (allocate_greedily, allocate_exactly):
        allocation = allocate(tensors, Budget(max_size_bytes=600, fixed_size_bytes=99))
        assert allocation.bit_widths == {"fc:weight": 4, "fc:input": 8}
        assert allocation.size_bytes == 599


def test_a_width_is_never_thought_worse_than_a_narrower_one() -> None:
    noisy = tensor("noisy", 100, (0.5, 0.9, 0.7))
    assert noisy.repaired_loss == (0.5, 0.5, 0.5)
    calm = tensor("calm", 100, (0.4, 0.1, 0))
    allocation = allocate_greedily([calm, noisy], Budget(average_bits=6))
    assert allocation.bit_widths == {"calm": 8, "noisy": 4}, "what costs nothing is taken first, one step at a time"
    assert allocation.predicted_loss == 0.5


def test_a_cliff_before_a_plain_is_passed_over() -> None:
    # 8 -> 4 costs as much as 8 -> 2: the first step alone looks dear, both together do not
    cliff = tensor("cliff", 100, (1.0, 1.0, 0))
    slope = tensor("slope", 100, (8.0, 0.9, 0))
    assert allocate_greedily([slope, cliff], Budget(average_bits=5)).bit_widths == {"slope": 8, "cliff": 2}


@settings(deadline=None, max_examples=40)
@given(problems(most=8))
def test_a_search_is_a_start_for_any_other_budget(problem: tuple[list[Choice], Budget, Budget]) -> None:
    tensors, tight, loose = problem
    one, other = (allocate_greedily(tensors, budget) for budget in (tight, loose))
    assert allocate_greedily(tensors, loose, resume_from=one.steps).bit_widths == other.bit_widths
    assert allocate_greedily(tensors, tight, resume_from=other.steps).bit_widths == one.bit_widths


def test_a_search_of_other_tensors_is_refused() -> None:
    steps = allocate_greedily([tensor("mine", 10, (2, 1, 0))], Budget(average_bits=4)).steps
    with pytest.raises(QuantizationError, match="saved search takes mine from 8 to 4"):
        allocate_greedily([tensor("other", 10, (2, 1, 0))], Budget(average_bits=4), resume_from=steps)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(average_bits=1.5), r"average_bits=1.5 cannot be met: the narrowest weights average 2;"),
        (
            Budget(max_size_bytes=30, fixed_size_bytes=20),
            r"max_size_mb=3e-05 cannot be met: the smallest possible is 4.5e-05 \(2e-05 of them",
        ),
    ],
)
def test_a_budget_that_cannot_be_met_says_the_smallest_possible(budget: Budget, message: str) -> None:
    tensors = [tensor("fc", 100, (2, 1, 0))]
    for allocate in (allocate_greedily, allocate_exactly):
        with pytest.raises(QuantizationError, match=message):
            allocate(tensors, budget)


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 0},
        {"bit_widths": ()},
        {"bit_widths": (4, 2, 8)},
        {"loss": (1.0, 0.0)},
        {"loss": (1.0, float("nan"), 0.0)},
        {"loss": (1.0, -0.1, 0.0)},
    ],
)
def test_a_choice_checks_itself(changes: dict[str, object]) -> None:
    with pytest.raises(QuantizationError, match="the choice for fc has"):
        replace(tensor("fc", 10, (2, 1, 0)), **changes)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"average_bits": 4, "max_size_bytes": 9},
        {"average_bits": 0},
        {"average_bits": math.inf},
        {"max_size_bytes": 9, "fixed_size_bytes": -1},
    ],
)
def test_a_budget_checks_itself(given: dict[str, float]) -> None:
    with pytest.raises(QuantizationError):
        Budget(**given)


def test_nothing_to_choose_and_names_twice_are_refused() -> None:
    with pytest.raises(QuantizationError, match="no tensors"):
        allocate_exactly([], Budget(average_bits=4))
    with pytest.raises(QuantizationError, match="fc is given twice"):
        allocate_exactly([tensor("fc", 1, (2, 1, 0))] * 2, Budget(average_bits=4))


def test_two_hundred_tensors_are_solved_exactly_and_the_greedy_one_is_close() -> None:
    tensors = [
        Choice(
            name=f"t{i}",
            count=1000 + 7919 * i % 5003,
            is_weight=i % 2 == 0,
            bit_widths=(2, 3, 4, 5, 6, 8),
            loss=tuple((1 + 31 * i % 17) * 4.0**-b for b in (2, 3, 4, 5, 6, 8)),
        )
        for i in range(200)
    ]
    budget = Budget(average_bits=4.5)
    exact, greedy = allocate_exactly(tensors, budget), allocate_greedily(tensors, budget)
    uniform = sum(choice.loss[2] for choice in tensors)
    assert exact.predicted_loss <= greedy.predicted_loss <= 1.02 * exact.predicted_loss < uniform
