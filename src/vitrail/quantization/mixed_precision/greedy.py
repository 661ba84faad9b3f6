"""Greedy MP of MPTQ-ViT (Tai and Wu 2024, arXiv:2401.14895), as far as its description goes.

All tensors start at their widest format; the one with the smallest increase of the loss for its saving gets a narrower
one, until the budget is met. The paper's equations are not public; that the two are divided is our reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitrail.core.errors import QuantizationError
from vitrail.quantization.mixed_precision.budget import (
    Allocation,
    Budget,
    Choice,
    Limit,
    Reduction,
    limits_of,
    make_allocation,
    predicted_loss,
)


def allocate_greedily(
    choices: Sequence[Choice], budget: Budget, *, resume_from: Sequence[Reduction] = ()
) -> Allocation:
    """Give one tensor after the other a narrower format until the budget is met.

    Each step takes the reduction with the smallest increase of the loss for its saving of the exceeded budget: bits of
    the average (weights and activations each count by their share of all elements), or bytes. A reduction may skip
    formats that save too little for their loss. Tensors within their bound are left alone.

    Args:
        choices: tensors; their order decides between equals.
        budget: bound to reach.
        resume_from: steps of an earlier search of these choices for any budget; they are taken as they are, as long
            as the budget is exceeded.

    Raises:
        QuantizationError: the budget cannot be met (the message gives the smallest possible), or steps of other
            choices.
    """
    search = _Search(choices, budget)
    for step in resume_from:
        if not search.exceeded():
            break
        search.replay(step)
    while limits := search.exceeded():
        search.step(limits)
    return make_allocation(choices, search.indices, budget, tuple(search.steps))


@dataclass(frozen=True)
class _Candidate:
    """Choice ``index`` reduced to candidate ``to``."""

    index: int
    to: int
    criterion: float


class _Search:
    """State of the greedy search."""

    def __init__(self, choices: Sequence[Choice], budget: Budget) -> None:
        self.choices = choices
        self.limits = limits_of(choices, budget)
        self.indices = [len(choice.bit_widths) - 1 for choice in choices]
        self.steps: list[Reduction] = []

    def exceeded(self) -> list[Limit]:
        return [limit for limit in self.limits if limit.exceeded(self.indices)]

    def replay(self, step: Reduction) -> None:
        """Take a step of an earlier search, unless its tensor is within its bound already."""
        index = next((i for i, choice in enumerate(self.choices) if choice.name == step.name), None)
        needed = index is not None and any(index in limit.costs for limit in self.exceeded())
        bit_widths = self.choices[index].bit_widths if index is not None else ()
        fits = index is not None and (not needed or bit_widths[self.indices[index]] == step.from_bits)
        if index is None or step.to_bits not in bit_widths or not fits:
            raise QuantizationError(
                f"the saved search takes {step.name} from {step.from_bits} to {step.to_bits} bits, which does not fit "
                f"these tensors and candidates; start it anew"
            )
        if needed:
            self._take(_Candidate(index, bit_widths.index(step.to_bits), step.criterion))

    def step(self, limits: Sequence[Limit]) -> None:
        """Take the best reduction of the exceeded limits' tensors."""
        candidates = [c for limit in limits for i in limit.members if (c := self._candidate(limit, i)) is not None]
        # a search from the start ends at the cheapest formats, which limits_of compares to the budget
        if not candidates:
            raise QuantizationError("the saved search leads nowhere with the costs of these tensors; start it anew")
        self._take(min(candidates, key=lambda candidate: (candidate.criterion, candidate.index)))

    def _take(self, candidate: _Candidate) -> None:
        choice = self.choices[candidate.index]
        before, self.indices[candidate.index] = self.indices[candidate.index], candidate.to
        self.steps.append(
            Reduction(
                name=choice.name,
                from_bits=choice.bit_widths[before],
                to_bits=choice.bit_widths[candidate.to],
                criterion=candidate.criterion,
                predicted_loss=predicted_loss(self.choices, self.indices),
            )
        )

    def _candidate(self, limit: Limit, index: int) -> _Candidate | None:
        """The best reduction of one tensor; among equals the one to the widest format."""
        now, losses, costs = self.indices[index], self.choices[index].repaired_loss, limit.costs[index]
        best: _Candidate | None = None
        for to in reversed(range(now)):
            saving = (costs[now] - costs[to]) / limit.unit
            if saving > 0:
                criterion = (losses[to] - losses[now]) / saving
                if best is None or criterion < best.criterion:
                    best = _Candidate(index, to, criterion)
        return best
