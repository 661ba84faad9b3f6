"""Bit widths that each tensor may have, a budget for all of them, and an allocation within it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vitrail.core.errors import QuantizationError

TOLERANCE = 1e-12
"""Share of a budget by which a sum of floats may exceed it, since sums in another order differ."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One tensor whose bit width is to be chosen.

    Attributes:
        name: name of the operand, e.g. "blocks.0.mlp.fc1:weight".
        count: number of elements: parameters of a weight, elements an image of an activation.
        is_weight: True for a weight, which takes room in the file; False for an activation.
        bit_widths: candidates, ascending.
        loss: predicted increase of the calibration loss at each candidate, 0 or more.
    """

    name: str
    count: int
    is_weight: bool
    bit_widths: tuple[int, ...]
    loss: tuple[float, ...]

    def __post_init__(self) -> None:
        bit_widths = self.bit_widths
        self._need(self.count > 0, f"count={self.count}; a tensor has at least one element")
        self._need(
            bool(bit_widths) and min(bit_widths) > 0 and list(bit_widths) == sorted(set(bit_widths)),
            f"bit_widths={bit_widths}; give at least one, all positive, in ascending order",
        )
        self._need(
            len(self.loss) == len(bit_widths),
            f"{len(self.loss)} values of loss for {len(bit_widths)} bit widths; give one each",
        )
        self._need(
            all(math.isfinite(value) and value >= 0 for value in self.loss),
            f"loss={self.loss}; every value must be finite and 0 or more",
        )

    def _need(self, fits: bool, problem: str) -> None:
        if not fits:
            raise QuantizationError(f"the choice for {self.name} has {problem}")

    @cached_property
    def repaired_loss(self) -> tuple[float, ...]:
        """The losses, none larger than that of a narrower candidate.

        Predictions are noisy, and a wider format holds at least what a narrower one does.
        """
        return tuple(min(self.loss[: i + 1]) for i in range(len(self.loss)))

    @cached_property
    def stored_bytes(self) -> tuple[int, ...]:
        """Bytes in the file at each candidate."""
        if not self.is_weight:
            return (0,) * len(self.bit_widths)
        return tuple(-(-self.count * bit_width // 8) for bit_width in self.bit_widths)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The bound of an allocation; exactly one of the first two is given.

    Attributes:
        average_bits: largest mean bit width of the weights (by parameters), and of the activations (by elements).
        max_size_bytes: largest size of all weights and ``fixed_size_bytes``.
        fixed_size_bytes: size of the float rest of the file, which the bit widths do not change.
    """

    average_bits: float | None = None
    max_size_bytes: int | None = None
    fixed_size_bytes: int = 0

    def __post_init__(self) -> None:
        if (self.average_bits is None) == (self.max_size_bytes is None):
            raise QuantizationError("a budget needs exactly one of average_bits and max_size_bytes")
        name = "average_bits" if self.max_size_bytes is None else "max_size_bytes"
        value = getattr(self, name)
        if not (math.isfinite(value) and value > 0):
            raise QuantizationError(f"{name}={value} is no budget; give a positive number")
        if self.fixed_size_bytes < 0:
            raise QuantizationError(f"fixed_size_bytes={self.fixed_size_bytes} is not allowed; it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """One step of the greedy search: a tensor gets a narrower format.

    Attributes:
        name: name of the tensor.
        from_bits, to_bits: bit width before and after.
        criterion: increase of the loss divided by the saving, which is in bits of the average or in bytes.
        predicted_loss: sum of all predictions after the step.
    """

    name: str
    from_bits: int
    to_bits: int
    criterion: float
    predicted_loss: float


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """The bit width of every tensor, and its cost.

    Attributes:
        bit_widths: name -> bit width, in the order of the choices.
        predicted_loss: sum of the (repaired) predictions; the increase over the float model.
        average_weight_bits: mean by parameters; 0 without weights.
        average_activation_bits: mean by elements an image; 0 without activations.
        size_bytes: size of the weights, and the budget's ``fixed_size_bytes``.
        steps: reductions of the greedy search; empty for the exact one.
    """

    bit_widths: Mapping[str, int]
    predicted_loss: float
    average_weight_bits: float
    average_activation_bits: float
    size_bytes: int
    steps: tuple[Reduction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AllocationTrace:
    """An allocation with the choices and the budget that it was made from."""

    choices: tuple[Choice, ...]
    budget: Budget
    allocation: Allocation


def make_allocation(
    choices: Sequence[Choice], indices: Sequence[int], budget: Budget, steps: tuple[Reduction, ...] = ()
) -> Allocation:
    """The allocation of one candidate to every choice, given by its index."""
    rows = list(zip(choices, indices, strict=True))

    def average(weights: bool) -> float:
        counts = [(choice.count, choice.bit_widths[i]) for choice, i in rows if choice.is_weight == weights]
        return sum(count * bit_width for count, bit_width in counts) / (sum(count for count, _ in counts) or 1)

    return Allocation(
        bit_widths={choice.name: choice.bit_widths[i] for choice, i in rows},
        predicted_loss=predicted_loss(choices, indices),
        average_weight_bits=average(True),
        average_activation_bits=average(False),
        size_bytes=sum(choice.stored_bytes[i] for choice, i in rows) + budget.fixed_size_bytes,
        steps=steps,
    )


def predicted_loss(choices: Sequence[Choice], indices: Sequence[int]) -> float:
    """The sum of the (repaired) predictions for one candidate of every choice."""
    return math.fsum(choice.repaired_loss[i] for choice, i in zip(choices, indices, strict=True))


@dataclass(frozen=True)
class Limit:
    """A sum that a budget bounds.

    Attributes:
        members: indices of the choices that add to it.
        costs: member -> cost at each of its candidates.
        capacity: largest sum of the costs.
        unit: divisor of a cost in the budget's own unit (``average_bits`` is bounded as a sum of bits).
        problem: the error for a capacity that is too small, from the smallest possible sum.
    """

    members: tuple[int, ...]
    costs: Mapping[int, tuple[float, ...]]
    capacity: float
    unit: float
    problem: Callable[[float], QuantizationError]

    def used(self, indices: Sequence[int]) -> float:
        """The sum for one candidate of every choice."""
        return math.fsum(self.costs[i][indices[i]] for i in self.members)

    def exceeded(self, indices: Sequence[int]) -> bool:
        return self.used(indices) > self.capacity * (1 + TOLERANCE)


def limits_of(choices: Sequence[Choice], budget: Budget) -> list[Limit]:
    """The bounds that a budget puts on these choices; no choice is in two of them.

    Raises:
        QuantizationError: no choices, two of one name, or a budget that even the narrowest formats exceed.
    """
    names = [choice.name for choice in choices]
    if not names:
        raise QuantizationError("there are no tensors to choose bit widths for; quantise at least one operation")
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise QuantizationError(f"tensor {repeated} is given twice; give each a name of its own")
    if budget.average_bits is not None:
        limits = [_average_limit(choices, weights, budget.average_bits) for weights in (True, False)]
    else:
        limits = [_size_limit(choices, budget)]
    for limit in limits:
        smallest = math.fsum(min(limit.costs[i]) for i in limit.members)
        if smallest > limit.capacity * (1 + TOLERANCE):
            raise limit.problem(smallest)
    return limits


def _average_limit(choices: Sequence[Choice], weights: bool, bits: float) -> Limit:
    members = tuple(i for i, choice in enumerate(choices) if choice.is_weight == weights)
    costs = {i: tuple(float(choices[i].count * width) for width in choices[i].bit_widths) for i in members}
    total = sum(choices[i].count for i in members) or 1
    kind = "weights" if weights else "activations"
    return Limit(
        members=members,
        costs=costs,
        capacity=bits * total,
        unit=total,
        problem=lambda smallest: QuantizationError(
            f"cannot be met: the narrowest {kind} average {smallest / total:.4g}; allow at least that, or narrower bit "
            f"widths",
            average_bits=bits,
        ),
    )


def _size_limit(choices: Sequence[Choice], budget: Budget) -> Limit:
    members = tuple(i for i, choice in enumerate(choices) if choice.is_weight)
    fixed, allowed = budget.fixed_size_bytes, budget.max_size_bytes or 0
    return Limit(
        members=members,
        costs={i: tuple(map(float, choices[i].stored_bytes)) for i in members},
        capacity=allowed - fixed,
        unit=1,
        problem=lambda smallest: QuantizationError(
            f"cannot be met: the smallest possible is {(smallest + fixed) / 1e6:.4g} ({fixed / 1e6:.4g} of them do not "
            f"depend on bit widths); allow at least that, or narrower bit widths",
            max_size_mb=allowed / 1e6,
        ),
    )
