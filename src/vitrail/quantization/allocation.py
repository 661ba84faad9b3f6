"""Mixed precision: how many bits each tensor gets, under one budget for all of them.

``allocate_greedily`` is the Greedy MP of MPTQ-ViT (Tai and Wu 2024, arXiv:2401.14895) as far as its description goes:
all tensors start at their widest, and the one that loses least for what it saves gives way, until the budget is met.
The paper's equations are not public; that the two are divided is our reading. ``allocate_exactly`` finds the best
allocation under the same predictions, to judge the greedy one by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from vitrail.core.errors import QuantizationError
from vitrail.quantization import knapsack
from vitrail.quantization.budget import Budget, Choice, Limit, limits_of

__all__ = ["Allocation", "Budget", "Choice", "Step", "allocate_exactly", "allocate_greedily", "make_allocation"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One reduction of the greedy search.

    Attributes:
        name: of the tensor.
        from_bits, to_bits: its width before and after.
        criterion: increase of the loss by what is saved: bits of the average, bytes or milliseconds, as the budget.
        predicted_loss: sum of all predictions after the step.
        measured_loss: after the step; None where nothing was measured.
        average_weight_bits, average_activation_bits, size_bytes: after the step.
    """

    name: str
    from_bits: int
    to_bits: int
    criterion: float
    predicted_loss: float
    measured_loss: float | None
    average_weight_bits: float
    average_activation_bits: float
    size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, also after a trip through JSON."""
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """The width of every tensor, and what that costs.

    Attributes:
        bit_widths: by name, in the order of the choices.
        predicted_loss: sum of the (repaired) predictions; the increase over the float model.
        average_weight_bits: by parameters; 0 without weights.
        average_activation_bits: by elements an image; 0 without activations.
        size_bytes: of the weights, and the budget's ``fixed_size_bytes``.
        trace: the steps of the greedy search; empty for the exact one.
    """

    bit_widths: Mapping[str, int]
    predicted_loss: float
    average_weight_bits: float
    average_activation_bits: float
    size_bytes: int
    trace: tuple[Step, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, also after a trip through JSON."""
        return cls(**{**values, "trace": tuple(Step.from_dict(step) for step in values["trace"])})


def make_allocation(
    choices: Sequence[Choice], chosen: Sequence[int], budget: Budget, trace: tuple[Step, ...] = ()
) -> Allocation:
    """What one candidate of every choice, given by its index, amounts to."""
    rows = list(zip(choices, chosen, strict=True))

    def average(weights: bool) -> float:
        counts = [(choice.count, choice.bit_widths[i]) for choice, i in rows if choice.is_weight == weights]
        return sum(count * bits for count, bits in counts) / (sum(count for count, _ in counts) or 1)

    return Allocation(
        bit_widths={choice.name: choice.bit_widths[i] for choice, i in rows},
        predicted_loss=math.fsum(choice.repaired_loss[i] for choice, i in rows),
        average_weight_bits=average(True),
        average_activation_bits=average(False),
        size_bytes=sum(choice.stored_bytes[i] for choice, i in rows) + budget.fixed_size_bytes,
        trace=trace,
    )


def allocate_greedily(
    choices: Sequence[Choice],
    budget: Budget,
    *,
    measure: Callable[[Mapping[str, int]], float] | None = None,
    measure_top: int = 1,
    on_step: Callable[[tuple[Step, ...]], None] | None = None,
    resume_from: Sequence[Step] = (),
) -> Allocation:
    """Narrow one tensor after the other until the budget is met.

    Each step takes the reduction with the least increase of the loss by what it saves of the exceeded budget: bits of
    the average (weights and activations each count by their share of all elements), bytes, or milliseconds. A
    reduction may pass over widths that save too little for what they lose. What is within its bound is left alone.

    Args:
        choices: the tensors; their order decides between equals.
        budget: what to reach.
        measure: the real calibration loss for a width of every tensor; the predictions, made one tensor at a time,
            know nothing of how errors add up.
        measure_top: how many of the best predicted reductions (of as many tensors) are measured at each step; the one
            with the least measured increase by what it saves is taken. With 1 the measurements only go to the trace.
        on_step: gets the trace so far after every step, e.g. to save it.
        resume_from: steps of an earlier search of these choices, an interrupted one or one with a larger budget; they
            are taken as they are, as long as the budget is exceeded.

    Raises:
        QuantizationError: the budget cannot be met (says the smallest possible), steps of other choices, or a measured
            loss that is no number.
    """
    if measure_top < 1:
        raise QuantizationError(f"measure_top={measure_top} is not allowed; measure 1 or more reductions a step")
    search = _Search(choices, budget, measure, measure_top)
    for step in resume_from:
        if not search.exceeded():
            break
        search.replay(step)
    while limits := search.exceeded():
        search.step(limits)
        if on_step is not None:
            on_step(tuple(search.trace))
    return make_allocation(choices, search.chosen, budget, tuple(search.trace))


@dataclass(frozen=True)
class _Reduction:
    """Choice ``index`` from where it is to candidate ``to``; ``saving`` is in the budget's unit."""

    index: int
    to: int
    saving: float
    criterion: float


class _Search:
    """Where the greedy search stands."""

    def __init__(
        self,
        choices: Sequence[Choice],
        budget: Budget,
        measure: Callable[[Mapping[str, int]], float] | None,
        measure_top: int,
    ) -> None:
        self.choices = choices
        self.budget = budget
        self.measure = measure
        self.measure_top = measure_top
        self.limits = limits_of(choices, budget)
        self.chosen = [len(choice.bit_widths) - 1 for choice in choices]
        self.trace: list[Step] = []
        self.measured_loss: float | None = None
        self.skipped = False

    def exceeded(self) -> list[Limit]:
        return [limit for limit in self.limits if limit.exceeded(self.chosen)]

    def replay(self, step: Step) -> None:
        """Take a step of an earlier search, unless what it saves is within its bound already."""
        index = next((i for i, choice in enumerate(self.choices) if choice.name == step.name), None)
        wanted = index is not None and any(index in limit.costs for limit in self.exceeded())
        widths = self.choices[index].bit_widths if index is not None else ()
        if index is None or step.to_bits not in widths or (wanted and widths[self.chosen[index]] != step.from_bits):
            raise QuantizationError(
                f"the saved search takes {step.name} from {step.from_bits} to {step.to_bits} bits, which does not fit "
                f"these tensors and candidates; start it anew"
            )
        self.skipped |= not wanted
        # after a step was left out, the losses measured in the earlier search are those of other widths
        self.measured_loss = None if self.skipped else step.measured_loss
        if wanted:
            self.chosen[index] = widths.index(step.to_bits)
            self.trace.append(replace(step, measured_loss=self.measured_loss))

    def step(self, limits: Sequence[Limit]) -> None:
        """Take the best reduction of what the exceeded limits hold."""
        found = [r for limit in limits for i in limit.members if (r := self._reduction(limit, i)) is not None]
        if not found:  # a search from the start ends at the cheapest widths, which limits_of has compared to the budget
            raise QuantizationError("the saved search leads nowhere with the costs of these tensors; start it anew")
        found.sort(key=lambda reduction: (reduction.criterion, reduction.index))
        best, loss = found[0], None
        if self.measure is not None:
            best, loss = self._measured(found[: self.measure_top])
        choice = self.choices[best.index]
        before, self.chosen[best.index] = self.chosen[best.index], best.to
        self.measured_loss = loss
        after = make_allocation(self.choices, self.chosen, self.budget)
        self.trace.append(
            Step(
                name=choice.name,
                from_bits=choice.bit_widths[before],
                to_bits=choice.bit_widths[best.to],
                criterion=best.criterion,
                predicted_loss=after.predicted_loss,
                measured_loss=loss,
                average_weight_bits=after.average_weight_bits,
                average_activation_bits=after.average_activation_bits,
                size_bytes=after.size_bytes,
            )
        )

    def _reduction(self, limit: Limit, index: int) -> _Reduction | None:
        """The best reduction of one tensor; among equals the one to the widest format."""
        now, losses, costs = self.chosen[index], self.choices[index].repaired_loss, limit.costs[index]
        best: _Reduction | None = None
        for to in reversed(range(now)):
            saving = (costs[now] - costs[to]) / limit.unit
            if saving > 0:
                criterion = (losses[to] - losses[now]) / saving
                if best is None or criterion < best.criterion:
                    best = _Reduction(index, to, saving, criterion)
        return best

    def _measured(self, candidates: Sequence[_Reduction]) -> tuple[_Reduction, float]:
        """The candidate with the least measured increase by what it saves, and the loss after it."""
        if self.measured_loss is None:
            self.measured_loss = self._measure(self.chosen)
        before, rows = self.measured_loss, []
        for reduction in candidates:
            chosen = list(self.chosen)
            chosen[reduction.index] = reduction.to
            loss = self._measure(chosen)
            rows.append((replace(reduction, criterion=(loss - before) / reduction.saving), loss))
        return min(rows, key=lambda row: row[0].criterion)  # among equals the best predicted

    def _measure(self, chosen: Sequence[int]) -> float:
        assert self.measure is not None
        loss = self.measure({c.name: c.bit_widths[i] for c, i in zip(self.choices, chosen, strict=True)})
        if not math.isfinite(loss):
            raise QuantizationError(
                f"the calibration loss is {loss} after {len(self.trace)} steps; check the model and the images"
            )
        return loss


def allocate_exactly(choices: Sequence[Choice], budget: Budget) -> Allocation:
    """The allocation with the least sum of predicted losses within the budget.

    The bounds of a budget share no tensor, so that each is a multiple-choice knapsack of its own; what no bound holds
    gets its widest format.

    Raises:
        QuantizationError: the budget cannot be met (says the smallest possible), or choices that contradict themselves.
    """
    chosen = [len(choice.bit_widths) - 1 for choice in choices]
    for limit in limits_of(choices, budget):
        items = knapsack.solve(
            [limit.costs[i] for i in limit.members],
            [choices[i].repaired_loss for i in limit.members],
            limit.capacity,
        )
        assert items is not None  # limits_of has checked it
        for i, item in zip(limit.members, items, strict=True):
            chosen[i] = item
    return make_allocation(choices, chosen, budget)
