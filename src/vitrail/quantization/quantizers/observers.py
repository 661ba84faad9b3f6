"""Observers choose the scale and the zero point of a uniform quantiser from observed values.

"min_max" clips nothing; "percentile" clips the rarest values; "mse" and "hessian" search for the range with the
smallest sum of rounding and clipping errors, the latter with each error weighted by the squared gradient of the model's
output (PTQ4ViT's Hessian-guided metric, arXiv:2111.12293, taken at the operand itself).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitrail.core.errors import QuantizationError
from vitrail.quantization.config import ObserverName
from vitrail.quantization.quantizers.uniform import UniformQuantizer

PERCENTILE = 0.9999
"""Share of values that the "percentile" observer keeps, split between both ends."""

SHRINKS = 40
"""Ranges that are tried in the first round, from the full one down to ``NARROWEST_SHRINK`` of it."""

NARROWEST_SHRINK = 0.15


def observe_tensor(
    values: Tensor,
    *,
    bit_width: int,
    signed: bool,
    symmetric: bool,
    observer: ObserverName = "mse",
    importance: Tensor | None = None,
) -> UniformQuantizer:
    """One scale and zero point for all values.

    Args:
        values: a sample of the operand, any shape.
        importance: weights of the squared errors, in the shape of the values; unused by "min_max" and "percentile".

    Raises:
        QuantizationError: no values, or NaN or infinity among them.
    """
    flat = values.detach().reshape(-1).float()
    low, high = _finite_range(flat)

    def make(low: Tensor, high: Tensor) -> UniformQuantizer:
        return UniformQuantizer.from_range(low, high, bit_width=bit_width, signed=signed, symmetric=symmetric)

    if observer == "min_max" or low == high:
        return make(low, high)
    if observer == "percentile":
        return make(*_percentiles(flat))
    weights = None if importance is None else importance.reshape(-1).float()

    def error(ends: tuple[float, float]) -> float:
        quantizer = make(low * ends[0], high * ends[1])
        return squared_error(flat, quantizer.fake_quantize(flat), weights)

    ends = _best_ends(error, both=not (symmetric and signed) and bool(low < 0) and bool(high > 0))
    return make(low * ends[0], high * ends[1])


def observe_channels(
    weight: Tensor,
    axis: int,
    *,
    bit_width: int,
    observer: ObserverName = "mse",
    importance: Tensor | None = None,
) -> UniformQuantizer:
    """One symmetric signed scale a channel of a weight.

    Args:
        weight: any shape.
        axis: dimension of the channels.
        importance: weight of the squared error of each element of a channel (elements,), in the order in which
            ``weight.movedim(axis, 0).flatten(1)`` has them.
    """
    rows = weight.detach().movedim(axis, 0).flatten(1).float()
    largest = rows.abs().amax(1)
    if not torch.isfinite(largest).all():
        raise QuantizationError("the weight holds NaN or infinity; check the checkpoint")

    def make(extent: Tensor) -> UniformQuantizer:
        return UniformQuantizer.from_range(-extent, extent, bit_width=bit_width, signed=True, symmetric=True, axis=axis)

    if observer == "min_max":
        return make(largest)
    if observer == "percentile":
        return make(torch.quantile(rows.abs(), PERCENTILE, dim=1))
    weights = None if importance is None else importance.reshape(1, -1).float()
    steps = 2 ** (bit_width - 1) - 1
    best, best_error = largest, torch.full_like(largest, float("inf"))
    for shrink in torch.linspace(1, 2 * NARROWEST_SHRINK, SHRINKS).tolist():
        scale = (largest * shrink / steps).clamp(min=torch.finfo(torch.float32).tiny)[:, None]
        difference = torch.round(rows / scale).clamp_(-steps, steps).mul_(scale).sub_(rows).square_()
        error = (difference if weights is None else difference.mul_(weights)).sum(1)
        best = torch.where(error < best_error, largest * shrink, best)
        best_error = torch.minimum(error, best_error)
    return make(best)


def squared_error(values: Tensor, approximation: Tensor, weights: Tensor | None = None) -> float:
    """Sum of squared differences, weighted or not, in float64."""
    squares = (values - approximation).square_()
    return float((squares if weights is None else squares.mul_(weights)).sum(dtype=torch.float64))


def _best_ends(error: Callable[[tuple[float, float]], float], both: bool) -> tuple[float, float]:
    """The shares of the lower and of the upper end of the range that give the smallest error.

    First both ends together; then, if the two may differ, each on its own around the best; then both, finer.
    """
    tried: dict[tuple[float, float], float] = {}

    def best_of(candidates: list[tuple[float, float]]) -> tuple[float, float]:
        for ends in candidates:
            if ends not in tried:
                tried[ends] = error(ends)
        return min(tried, key=lambda ends: tried[ends])

    grid = torch.linspace(1, NARROWEST_SHRINK, SHRINKS // 2).tolist()
    ends = best_of([(s, s) for s in grid])
    if both:
        ends = best_of([(ends[0], s) for s in grid])
        ends = best_of([(s, ends[1]) for s in grid])
    for factor in (0.97, 1.03):
        ends = best_of([(min(ends[0] * factor, 1.0), min(ends[1] * factor, 1.0))])
    return ends


def _percentiles(flat: Tensor) -> tuple[Tensor, Tensor]:
    """The values that cut ``1 - PERCENTILE`` off, half of it at each end."""
    ordered = flat.sort().values
    cut = int(len(ordered) * (1 - PERCENTILE) / 2)
    return ordered[cut], ordered[len(ordered) - 1 - cut]


def _finite_range(flat: Tensor) -> tuple[Tensor, Tensor]:
    if not flat.numel():
        raise QuantizationError("was never seen; calibrate with at least one image")
    low, high = flat.aminmax()
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise QuantizationError("holds NaN or infinity")
    return low, high
