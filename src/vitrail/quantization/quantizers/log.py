"""Logarithmic quantiser: values as powers of a base; simulated, since no runtime multiplies such codes as integers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vitrail.core.errors import QuantizationError
from vitrail.quantization.quantizers.uniform import check_bit_width


@dataclass(frozen=True, kw_only=True)
class LogQuantizer:
    """Values in [0, maximum] as powers: real = maximum x base^(-code); the last code is zero.

    Sources: FQ-ViT (base 2, for attention probabilities), arXiv:2111.13824; RepQ-ViT (base sqrt 2), arXiv:2212.08254.

    Attributes:
        bit_width: 2 to 8.
        base: above 1; 2 or the square root of 2.
        maximum: the value of code 0, positive.
    """

    kind: ClassVar[str] = "log"

    bit_width: int
    base: float
    maximum: float = 1.0

    def __post_init__(self) -> None:
        check_bit_width(self.bit_width)
        if not (self.base > 1 and 0 < self.maximum < math.inf):
            raise QuantizationError(f"base={self.base} must be above 1 and maximum={self.maximum} positive and finite")

    @property
    def zero_code(self) -> int:
        """The last code, which means 0."""
        return int(2**self.bit_width) - 1

    def quantize(self, x: Tensor) -> Tensor:
        """Codes (uint8) of real values; negative ones count as 0."""
        exponent = torch.round(-torch.log2(x / self.maximum) / math.log2(self.base))
        return exponent.nan_to_num(nan=self.zero_code).clamp(0, self.zero_code).to(torch.uint8)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Real values (float32) of codes."""
        values = self.maximum * torch.pow(self.base, -codes.to(torch.float32))
        return values.masked_fill(codes == self.zero_code, 0.0)

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Quantise and dequantise."""
        return self.dequantize(self.quantize(x))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind} | asdict(self)
