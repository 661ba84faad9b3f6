"""Bit widths under a budget: within it, the exact ones as good as trying everything, the greedy ones never better."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from vitrail.core.errors import QuantizationError
from vitrail.quantization.allocation import (
    Allocation,
    Budget,
    Choice,
    Step,
    allocate_exactly,
    allocate_greedily,
    make_allocation,
)
from vitrail.quantization.budget import limits_of

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
        latency = draw(st.lists(st.floats(0.01, 5), min_size=len(widths), max_size=len(widths)))
        made.append(
            Choice(
                name=f"blocks.{index}:weight",
                count=draw(st.integers(1, 50)),
                is_weight=draw(st.booleans()),
                bit_widths=widths,
                loss=tuple(map(float, loss)),
                latency_ms=tuple(latency),
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
    rows = [c.stored_bytes if kind == "max_size_bytes" else c.latency_ms for c in choices]
    return math.fsum(map(min, rows)), math.fsum(map(max, rows))


@st.composite
def problems(draw: st.DrawFn, most: int = 6) -> tuple[list[Choice], Budget, Budget]:
    """Tensors, and two budgets of which the first is not larger."""
    tensors = draw(choices(most))
    kind = draw(st.sampled_from(["average_bits", "max_size_bytes", "max_latency_ms"]))
    low, high = extremes(tensors, kind)
    values = sorted(low + (high - low) * draw(st.floats(0, 1)) for _ in range(2))
    if kind == "max_size_bytes":
        tight, loose = (Budget(max_size_bytes=math.ceil(value) + 1) for value in values)
    else:
        tight, loose = (Budget(**{kind: value * (1 + 1e-9)}) for value in values)
    return tensors, tight, loose


def cost(allocation: Allocation, choices: Sequence[Choice], budget: Budget) -> float:
    """What the budget bounds, computed from the widths alone."""
    if budget.average_bits is not None:
        return max(allocation.average_weight_bits, allocation.average_activation_bits)
    if budget.max_size_bytes is not None:
        return sum(math.ceil(c.count * allocation.bit_widths[c.name] / 8) for c in choices if c.is_weight)
    return math.fsum(c.latency_ms[c.bit_widths.index(allocation.bit_widths[c.name])] for c in choices)


def allowed(budget: Budget) -> float:
    return budget.average_bits or budget.max_size_bytes or budget.max_latency_ms or 0


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
def test_the_trace_tells_the_whole_story(problem: tuple[list[Choice], Budget, Budget]) -> None:
    tensors, budget, _ = problem
    allocation = allocate_greedily(tensors, budget)
    widths = {c.name: max(c.bit_widths) for c in tensors}
    loss = -1.0
    for step in allocation.trace:
        assert widths[step.name] == step.from_bits > step.to_bits
        assert step.criterion >= 0
        assert step.predicted_loss >= loss
        widths[step.name], loss = step.to_bits, step.predicted_loss
    assert widths == allocation.bit_widths
    if allocation.trace:
        last = allocation.trace[-1]
        assert (last.predicted_loss, last.size_bytes) == (allocation.predicted_loss, allocation.size_bytes)
    assert Allocation.from_dict(json.loads(json.dumps(allocation.to_dict()))) == allocation


def tensor(name: str, count: int, loss: Sequence[float], *, is_weight: bool = True) -> Choice:
    return Choice(name=name, count=count, is_weight=is_weight, bit_widths=(2, 4, 8), loss=tuple(loss))


def test_the_criterion_weighs_loss_by_what_is_saved() -> None:
    # the same loss for ten times the parameters: the large tensor gives way; ten times the loss: a draw, by order
    large, small = tensor("large", 100, (9, 1, 0)), tensor("small", 10, (9, 1, 0))
    budget = Budget(average_bits=5)
    assert allocate_greedily([small, large], budget).trace[0].name == "large"
    equal = tensor("equal", 10, (9, 0.1, 0))
    assert allocate_greedily([equal, large], budget).trace[0].name == "equal"
    assert allocate_greedily([large, equal], budget).trace[0].name == "large"
    step = allocate_greedily([large, small], budget).trace[0]
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


def test_sizes_in_the_file_count_where_they_are_known() -> None:
    stored = replace(tensor("fc:weight", 1000, (0.1, 0.01, 0)), size_bytes=(500, 500, 1000))
    assert allocate_greedily([stored], Budget(max_size_bytes=600)).bit_widths == {"fc:weight": 4}
    with pytest.raises(QuantizationError, match="the smallest possible is 500 "):
        allocate_greedily([stored], Budget(max_size_bytes=400))


def test_a_latency_budget_takes_the_widest_of_equally_fast_formats() -> None:
    widths = (3, 4, 8, 32)
    tensors = [
        Choice(name="fc", count=9, is_weight=True, bit_widths=widths, loss=(3, 2, 1, 0), latency_ms=(1, 1, 1, 3)),
        Choice(name="conv", count=9, is_weight=True, bit_widths=widths, loss=(9, 8, 7, 0), latency_ms=(2, 2, 2, 1)),
        Choice(name="input", count=9, is_weight=False, bit_widths=widths, loss=(9, 8, 7, 0)),
    ]
    for allocate in (allocate_greedily, allocate_exactly):
        allocation = allocate(tensors, Budget(max_latency_ms=7, fixed_latency_ms=5))
        assert allocation.bit_widths == {"fc": 8, "conv": 32, "input": 32}


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


def test_measured_losses_decide_between_the_best_predicted() -> None:
    tensors = [tensor(name, 100, (9, loss, 0)) for name, loss in (("a", 1.0), ("b", 1.1), ("c", 5.0))]
    true_loss = {"a": 4.0, "b": 0.5, "c": 0.0}
    asked: list[dict[str, int]] = []

    def measure(bits: Mapping[str, int]) -> float:
        asked.append(dict(bits))
        return 2.0 + sum(true_loss[name] for name, width in bits.items() if width < 8)

    budget = Budget(average_bits=7)
    allocation = allocate_greedily(tensors, budget, measure=measure, measure_top=2)
    assert allocation.bit_widths == {"a": 8, "b": 4, "c": 8}, "c is the best in truth, but not among the best predicted"
    assert asked == [{"a": 8, "b": 8, "c": 8}, {"a": 4, "b": 8, "c": 8}, {"a": 8, "b": 4, "c": 8}]
    assert allocation.trace[0].measured_loss == 2.5
    assert allocation.trace[0].criterion == pytest.approx(0.5 / (400 / 300))
    assert allocate_greedily(tensors, budget, measure=measure).bit_widths == {"a": 4, "b": 8, "c": 8}


def test_an_interrupted_search_goes_on_where_it_stopped() -> None:
    tensors = [tensor(f"t{i}", 10 + i, (3 + i, 1 / (1 + i), 0)) for i in range(6)]
    budget = Budget(average_bits=3)
    count = 0

    def measure(bits: Mapping[str, int]) -> float:
        nonlocal count
        count += 1
        return sum((8 - width) ** 2 * len(name) for name, width in bits.items())

    whole = allocate_greedily(tensors, budget, measure=measure, measure_top=2)
    whole_count, count = count, 0
    saved: list[Step] = []

    def interrupt(trace: tuple[Step, ...]) -> None:
        saved[:] = [Step.from_dict(json.loads(json.dumps(step.to_dict()))) for step in trace]
        if len(trace) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        allocate_greedily(tensors, budget, measure=measure, measure_top=2, on_step=interrupt)
    resumed = allocate_greedily(tensors, budget, measure=measure, measure_top=2, resume_from=saved)
    assert resumed == whole
    assert count == whole_count, "nothing is measured twice"


@settings(deadline=None, max_examples=40)
@given(problems(most=8))
def test_a_search_is_a_start_for_any_other_budget(problem: tuple[list[Choice], Budget, Budget]) -> None:
    tensors, tight, loose = problem
    one, other = (allocate_greedily(tensors, budget) for budget in (tight, loose))
    assert allocate_greedily(tensors, loose, resume_from=one.trace).bit_widths == other.bit_widths
    assert allocate_greedily(tensors, tight, resume_from=other.trace).bit_widths == one.bit_widths


def test_losses_measured_at_other_widths_are_not_taken_over() -> None:
    tensors = [tensor("w", 10, (9, 2, 0)), tensor("a", 10, (1, 0.5, 0), is_weight=False)]
    # activations first, then weights; the larger budget keeps the activations at their widest
    tight = allocate_greedily(tensors, Budget(average_bits=4), measure=lambda bits: float(sum(bits.values())))
    assert [(step.name, step.measured_loss) for step in tight.trace] == [("a", 12), ("w", 8)]
    tensors[1] = replace(tensors[1], bit_widths=(2, 4, 4 + 1))
    steps = [replace(tight.trace[0], from_bits=5), tight.trace[1]]
    loose = allocate_greedily(tensors, Budget(average_bits=5), resume_from=steps)
    assert [(step.name, step.measured_loss) for step in loose.trace] == [("w", None)]


def test_a_search_of_other_tensors_is_refused() -> None:
    steps = allocate_greedily([tensor("mine", 10, (2, 1, 0))], Budget(average_bits=4)).trace
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
        (Budget(max_latency_ms=1), r"max_latency_ms=1 cannot be met: the smallest possible is 1.25 "),
    ],
)
def test_a_budget_that_cannot_be_met_says_the_smallest_possible(budget: Budget, message: str) -> None:
    tensors = [replace(tensor("fc", 100, (2, 1, 0)), latency_ms=(1.25, 2, 2))]
    for allocate in (allocate_greedily, allocate_exactly):
        with pytest.raises(QuantizationError, match=message):
            allocate(tensors, budget)


def test_a_latency_budget_needs_latencies() -> None:
    with pytest.raises(QuantizationError, match="measure them first"):
        allocate_greedily([tensor("fc", 100, (2, 1, 0))], Budget(max_latency_ms=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 0},
        {"bit_widths": ()},
        {"bit_widths": (4, 2, 8)},
        {"loss": (1.0, 0.0)},
        {"loss": (1.0, float("nan"), 0.0)},
        {"loss": (1.0, -0.1, 0.0)},
        {"latency_ms": (1.0,)},
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
        {"max_latency_ms": math.inf},
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


def test_a_loss_that_is_no_number_stops_the_search() -> None:
    with pytest.raises(QuantizationError, match="calibration loss is nan after 0 steps"):
        allocate_greedily([tensor("fc", 1, (2, 1, 0))], Budget(average_bits=4), measure=lambda _: math.nan)
    with pytest.raises(QuantizationError, match="measure_top=0"):
        allocate_greedily([tensor("fc", 1, (2, 1, 0))], Budget(average_bits=4), measure_top=0)


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
