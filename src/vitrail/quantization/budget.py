"""What may be chosen for each tensor, and what all of them together may cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vitrail.core.errors import QuantizationError
from vitrail.quantization.knapsack import ROUNDING

TOLERANCE = ROUNDING
"""Share of a budget by which a sum of floats may exceed it."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One tensor whose bit width is to be chosen.

    Attributes:
        name: of the operand, e.g. "blocks.0.mlp.fc1:weight".
        count: elements: parameters of a weight, elements an image of an activation.
        is_weight: weights take room in the file; activations do not.
        bit_widths: candidates, ascending.
        loss: predicted increase of the calibration loss at each candidate, 0 or more.
        latency_ms: measured contribution to the latency at each candidate; empty where it makes no difference.
        size_bytes: of a weight in the file at each candidate; by default its elements, packed.
    """

    name: str
    count: int
    is_weight: bool
    bit_widths: tuple[int, ...]
    loss: tuple[float, ...]
    latency_ms: tuple[float, ...] = ()
    size_bytes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        widths = self.bit_widths
        self._need(self.count > 0, f"count={self.count}; a tensor has at least one element")
        self._need(
            bool(widths) and min(widths) > 0 and list(widths) == sorted(set(widths)),
            f"bit_widths={widths}; give at least one, all positive, in ascending order",
        )
        for name in ("loss", "latency_ms", "size_bytes"):
            values = getattr(self, name)
            self._need(
                len(values) == len(widths) or (not values and name != "loss"),
                f"{len(values)} values of {name} for {len(widths)} bit widths; give one each",
            )
            self._need(
                all(math.isfinite(value) and value >= 0 for value in values),
                f"{name}={values}; every value must be finite and 0 or more",
            )

    def _need(self, fits: bool, problem: str) -> None:
        if not fits:
            raise QuantizationError(f"the choice for {self.name} has {problem}")

    @cached_property
    def repaired_loss(self) -> tuple[float, ...]:
        """The losses, but none wider than a candidate that is predicted to lose less.

        Predictions are noisy, and a wider format holds at least what a narrower one does.
        """
        return tuple(min(self.loss[: i + 1]) for i in range(len(self.loss)))

    @cached_property
    def stored_bytes(self) -> tuple[int, ...]:
        """Bytes in the file at each candidate."""
        if not self.is_weight:
            return (0,) * len(self.bit_widths)
        return self.size_bytes or tuple(-(-self.count * width // 8) for width in self.bit_widths)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an allocation may cost; exactly one of the three is given.

    Attributes:
        average_bits: the mean width of the weights (by parameters) and that of the activations (by elements) are each
            at most this.
        max_size_bytes: of all weights, and ``fixed_size_bytes``.
        max_latency_ms: the sum of all contributions, and ``fixed_latency_ms``.
        fixed_size_bytes, fixed_latency_ms: what the chosen widths do not change: the float rest of the file, the
            operations that are not quantised.
    """

    average_bits: float | None = None
    max_size_bytes: int | None = None
    max_latency_ms: float | None = None
    fixed_size_bytes: int = 0
    fixed_latency_ms: float = 0.0

    def __post_init__(self) -> None:
        limits = ("average_bits", "max_size_bytes", "max_latency_ms")
        given = [name for name in limits if getattr(self, name) is not None]
        if len(given) != 1:
            raise QuantizationError(
                f"a budget needs exactly one of {', '.join(limits)}, not {' and '.join(given) or 'none'}"
            )
        value = getattr(self, given[0])
        if not (math.isfinite(value) and value > 0):
            raise QuantizationError(f"{given[0]}={value} is no budget; give a positive number")
        for name in ("fixed_size_bytes", "fixed_latency_ms"):
            if not 0 <= getattr(self, name) < math.inf:
                raise QuantizationError(f"{name}={getattr(self, name)} is not allowed; it must be 0 or more")


@dataclass(frozen=True)
class Limit:
    """A sum that a budget bounds.

    Attributes:
        members: indices of the choices that add to it.
        costs: of each member, at each of its candidates.
        capacity: the most that the costs may sum up to.
        unit: a cost divided by this is in the budget's own unit (``average_bits`` is bounded as a sum of bits).
        problem: the error that ``capacity`` is too small, given the least possible sum.
    """

    members: tuple[int, ...]
    costs: Mapping[int, tuple[float, ...]]
    capacity: float
    unit: float
    problem: Callable[[float], QuantizationError]

    def used(self, chosen: Sequence[int]) -> float:
        """The sum for one candidate of every choice."""
        return math.fsum(self.costs[i][chosen[i]] for i in self.members)

    def exceeded(self, chosen: Sequence[int]) -> bool:
        return self.used(chosen) > self.capacity * (1 + TOLERANCE)


def limits_of(choices: Sequence[Choice], budget: Budget) -> list[Limit]:
    """The bounds that a budget puts on these choices; no choice is in two of them.

    Raises:
        QuantizationError: no choices, two of one name, or a budget that even the narrowest widths exceed.
    """
    names = [choice.name for choice in choices]
    if not names:
        raise QuantizationError("there are no tensors to choose bit widths for; quantise at least one operation")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise QuantizationError(f"tensor {twice} is given twice; give each a name of its own")
    if budget.average_bits is not None:
        limits = [_average_limit(choices, kind, budget.average_bits) for kind in (True, False)]
    elif budget.max_size_bytes is not None:
        limits = [_size_limit(choices, budget)]
    else:
        limits = [_latency_limit(choices, budget)]
    if budget.max_latency_ms is not None and not limits[0].members:
        raise QuantizationError(
            "max_latency_ms needs the latency of at least one tensor at each of its bit widths; measure them first"
        )
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


def _latency_limit(choices: Sequence[Choice], budget: Budget) -> Limit:
    members = tuple(i for i, choice in enumerate(choices) if choice.latency_ms)
    fixed, allowed = budget.fixed_latency_ms, budget.max_latency_ms or 0.0
    return Limit(
        members=members,
        costs={i: choices[i].latency_ms for i in members},
        capacity=allowed - fixed,
        unit=1,
        problem=lambda smallest: QuantizationError(
            f"cannot be met: the smallest possible is {smallest + fixed:.4g} ({fixed:.4g} of them do not depend on bit "
            f"widths); allow at least that, or take a smaller model",
            max_latency_ms=allowed,
        ),
    )
