"""Uniform quantisers: real = scale x (q - zero_point), per tensor or per channel, 2 to 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from vitrail.core.errors import QuantizationError

MIN_BITS, MAX_BITS = 2, 8

NARROWEST = 1e-3
"""A channel's range is at least this share of the widest one's: a dead channel still needs a positive scale, and one
so small that the 32-bit bias beside it overflows helps nobody."""


@dataclass(frozen=True, kw_only=True)
class UniformQuantizer:
    """Where the codes of one operand lie on the real line.

    Attributes:
        bit_width: 2 to 8.
        signed: codes are in [-2^(b-1), 2^(b-1) - 1], stored as int8; otherwise [0, 2^b - 1], stored as uint8.
        symmetric: zero_point is 0 and the lowest signed code is not used, so that negation is exact.
        axis: dimension of the channels; None for one scale for the whole tensor.
        scale: one a channel, positive; one in all where ``axis`` is None.
        zero_point: the code of 0.0, as many as scales.
    """

    bit_width: int
    signed: bool
    symmetric: bool
    axis: int | None
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.bit_width <= MAX_BITS:
            raise QuantizationError(f"bit_width={self.bit_width} is not supported; choose {MIN_BITS} to {MAX_BITS}")
        if len(self.scale) != len(self.zero_point) or (self.axis is None and len(self.scale) != 1) or not self.scale:
            raise QuantizationError(
                f"{len(self.scale)} scales and {len(self.zero_point)} zero points for axis={self.axis}; give one each "
                f"per channel, or one in all without an axis"
            )
        for scale, zero_point in zip(self.scale, self.zero_point, strict=True):
            if not 0 < scale < float("inf"):
                raise QuantizationError(f"scale={scale} is not positive and finite; calibrate again")
            if not self.quant_min <= zero_point <= self.quant_max or (self.symmetric and self.signed and zero_point):
                raise QuantizationError(
                    f"zero_point={zero_point} is not allowed: a code from {self.quant_min} to {self.quant_max} is, "
                    f"and 0 alone if symmetric"
                )

    kind: ClassVar[str] = "uniform"

    @property
    def quant_min(self) -> int:
        if not self.signed:
            return 0
        return -(2 ** (self.bit_width - 1)) + int(self.symmetric)

    @property
    def quant_max(self) -> int:
        return int(2 ** (self.bit_width - int(self.signed)) - 1)

    @property
    def dtype(self) -> torch.dtype:
        return torch.int8 if self.signed else torch.uint8

    @classmethod
    def from_range(
        cls, minimum: Tensor, maximum: Tensor, *, bit_width: int, signed: bool, symmetric: bool, axis: int | None = None
    ) -> Self:
        """The finest quantiser that covers [minimum, maximum] and has a code for exactly 0.

        Args:
            minimum, maximum: scalars, or one value a channel where ``axis`` is given.

        Raises:
            QuantizationError: a range that is not finite, or a bit width that is not supported.
        """
        if not MIN_BITS <= bit_width <= MAX_BITS:
            raise QuantizationError(f"bit_width={bit_width} is not supported; choose {MIN_BITS} to {MAX_BITS}")
        low = minimum.detach().reshape(-1).double().clamp(max=0)
        high = maximum.detach().reshape(-1).double().clamp(min=0)
        if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
            raise QuantizationError("the range holds NaN or infinity; check the model and the images")
        levels = 2**bit_width - 1
        if symmetric and signed:
            largest = torch.maximum(-low, high)
            scale = _positive(largest) / (levels // 2)
            zero_point = torch.zeros_like(scale)
        else:
            scale = _positive(high - low) / levels
            lowest = -(2 ** (bit_width - 1)) if signed else 0
            zero_point = (lowest - low / scale).round().clamp(lowest, lowest + levels)
        # runtimes compute with float32 scales, so the plan holds exactly those
        return cls(
            bit_width=bit_width,
            signed=signed,
            symmetric=symmetric,
            axis=axis,
            scale=tuple(scale.float().tolist()),
            zero_point=tuple(int(z) for z in zero_point.tolist()),
        )

    def parameters(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """(scale float32, zero_point int8/uint8), both scalars per tensor and vectors per channel."""
        scale = torch.tensor(self.scale, dtype=torch.float32, device=device)
        zero_point = torch.tensor(self.zero_point, dtype=self.dtype, device=device)
        return (scale, zero_point) if self.axis is not None else (scale[0], zero_point[0])

    def quantize(self, x: Tensor) -> Tensor:
        """Codes (int8 or uint8) of real values; values out of range get the nearest end."""
        scale, zero_point = self._shaped(x)
        codes = torch.round(x / scale) + zero_point
        return codes.clamp(self.quant_min, self.quant_max).to(self.dtype)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Real values (float32) of codes."""
        scale, zero_point = self._shaped(codes)
        return (codes.to(torch.float32) - zero_point) * scale

    def fake_quantize(self, x: Tensor) -> Tensor:
        """What is left of real values after a trip through the codes."""
        return self.dequantize(self.quantize(x))

    def _shaped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale, zero_point = self.parameters(x.device)
        if self.axis is None:
            return scale, zero_point.float()
        if x.shape[self.axis] != len(self.scale):
            raise QuantizationError(
                f"a tensor of shape {tuple(x.shape)} has {x.shape[self.axis]} channels on axis {self.axis}; the plan "
                f"has {len(self.scale)} scales"
            )
        shape = [1] * x.ndim
        shape[self.axis] = -1
        return scale.view(shape), zero_point.float().view(shape)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "bit_width": self.bit_width,
            "signed": self.signed,
            "symmetric": self.symmetric,
            "axis": self.axis,
            "scale": list(self.scale),
            "zero_point": list(self.zero_point),
        }


def _positive(extent: Tensor) -> Tensor:
    """Extents with dead and nearly dead channels widened, see ``NARROWEST``."""
    widest = float(extent.max())
    return extent.clamp(min=widest * NARROWEST) if widest > 0 else torch.ones_like(extent)
