"""Observers watch an activation over the calibration images and say which range its codes should cover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from vitrail.core.errors import QuantizationError


class Observer(Protocol):
    """One for each observed activation; a percentile or error-minimising one has the same two methods."""

    def update(self, x: Tensor) -> None:
        """See the activation of one more batch.

        Raises:
            QuantizationError: NaN or infinity in it.
        """

    def range(self) -> tuple[Tensor, Tensor]:
        """(minimum, maximum), scalars, that the codes should cover.

        Raises:
            QuantizationError: nothing was seen yet.
        """


class MinMaxObserver:
    """The smallest and the largest value ever seen: nothing is clipped."""

    def __init__(self) -> None:
        self.minimum: Tensor | None = None
        self.maximum: Tensor | None = None

    def update(self, x: Tensor) -> None:
        low, high = x.detach().aminmax()
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise QuantizationError("holds NaN or infinity")
        self.minimum = low if self.minimum is None else torch.minimum(self.minimum, low)
        self.maximum = high if self.maximum is None else torch.maximum(self.maximum, high)

    def range(self) -> tuple[Tensor, Tensor]:
        if self.minimum is None or self.maximum is None:
            raise QuantizationError("was never seen; calibrate with at least one image")
        return self.minimum, self.maximum


OBSERVERS: dict[str, Callable[[], Observer]] = {"min_max": MinMaxObserver}
"""Name in :class:`~vitrail.quantization.plan.QuantizationConfig` -> how to make one."""
