"""Outlier quantiser: a second scale for the channels with a much larger range; simulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vitrail.core.errors import QuantizationError
from vitrail.quantization.quantizers.uniform import UniformQuantizer


@dataclass(frozen=True, kw_only=True)
class OutlierQuantizer:
    """Uniform codes for a tensor whose channels are on the last axis, with a larger scale for a few outlying channels.

    Source: O-2SF of TSPTQ-ViT, which MPTQ-ViT builds on, arXiv:2401.14895.

    Attributes:
        inner: quantiser of the other channels, with one scale.
        outliers: indices of the outlying channels.
        ratio_exponent: exponent m; the scale of outlying channels is 2**m times as large.
    """

    kind: ClassVar[str] = "outlier"

    inner: UniformQuantizer
    outliers: tuple[int, ...]
    ratio_exponent: int

    def __post_init__(self) -> None:
        if self.inner.axis is not None or self.ratio_exponent < 0 or min(self.outliers, default=0) < 0:
            raise QuantizationError(
                f"axis={self.inner.axis} must be None, ratio_exponent={self.ratio_exponent} and channels not negative"
            )

    @property
    def bit_width(self) -> int:
        return self.inner.bit_width

    def factors(self, num_channels: int) -> Tensor:
        """Factors of the channels' scales, (num_channels,).

        Raises:
            QuantizationError: an outlying channel that the tensor does not have.
        """
        if max(self.outliers, default=0) >= num_channels:
            raise QuantizationError(f"channel {max(self.outliers)} of {num_channels} does not exist; quantise again")
        factors = torch.ones(num_channels)
        factors[list(self.outliers)] = 2.0**self.ratio_exponent
        return factors

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Quantise and dequantise real values (..., channels)."""
        factors = self.factors(x.shape[-1])
        return self.inner.fake_quantize(x / factors) * factors

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "outliers": list(self.outliers),
            "ratio_exponent": self.ratio_exponent,
            "inner": self.inner.to_dict(),
        }
