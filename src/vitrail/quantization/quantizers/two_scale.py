"""Two-scale quantiser: two regions with a scale each; simulated, since no runtime multiplies such codes as integers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from vitrail.core.errors import QuantizationError
from vitrail.quantization.config import MAX_BITS

Regions = Literal["magnitude", "sign"]


@dataclass(frozen=True, kw_only=True)
class TwoScaleQuantizer:
    """Two regions with a scale each: one bit of a code names the region, the others are an integer in it.

    The scales differ by a power of two, so an integer unit aligns the regions by a shift. Sources: PTQ4ViT's twin
    uniform quantiser, arXiv:2111.12293 (regions by "sign"); V-2SF of TSPTQ-ViT and OPT-m of MPTQ-ViT,
    arXiv:2401.14895 (regions by "magnitude").

    Attributes:
        bit_width: 3 to 8, the region's bit included.
        regions: "magnitude": the fine scale near zero, the coarse one for large values; "sign": the fine scale for
            negative, the coarse one for positive values.
        fine_scale: scale of the fine region, positive.
        ratio_exponent: exponent m; the coarse scale is ``fine_scale * 2**m``.
        signed: half of the fine codes are negative; only with regions by magnitude.
    """

    kind: ClassVar[str] = "two_scale"

    bit_width: int
    regions: Regions
    fine_scale: float
    ratio_exponent: int
    signed: bool = False

    def __post_init__(self) -> None:
        if not 3 <= self.bit_width <= MAX_BITS:
            raise QuantizationError(
                f"bit_width={self.bit_width} is not supported for two regions; choose 3 to {MAX_BITS}"
            )
        if not 0 < self.fine_scale < math.inf or self.ratio_exponent < 0:
            raise QuantizationError(
                f"fine_scale={self.fine_scale} must be positive and ratio_exponent={self.ratio_exponent} not negative"
            )

    @property
    def fine_codes(self) -> tuple[int, int]:
        """The lowest and the highest code of the fine region."""
        half = 2 ** (self.bit_width - 1)
        if self.regions == "sign":
            return -(half - 1), 0
        return (-(half // 2), half // 2 - 1) if self.signed else (0, half - 1)

    @property
    def coarse_codes(self) -> tuple[int, int]:
        return 0, 2 ** (self.bit_width - 1) - 1

    @property
    def coarse_scale(self) -> float:
        return self.fine_scale * 2.0**self.ratio_exponent

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Quantise to the nearest code of both regions, the fine one where both are as near, and dequantise."""
        fine = torch.round(x / self.fine_scale).clamp_(*self.fine_codes).mul_(self.fine_scale)
        coarse = torch.round(x / self.coarse_scale).clamp_(*self.coarse_codes).mul_(self.coarse_scale)
        return torch.where((x - coarse).abs() < (x - fine).abs(), coarse, fine)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind} | asdict(self)
