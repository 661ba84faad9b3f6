"""Uniform quantisers: real = scale x (q - zero_point), per tensor or per channel, 2 to 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from vitrail.core.errors import QuantizationError
from vitrail.quantization.config import MAX_BITS, MIN_BITS

NARROWEST = 1e-3
"""Smallest range of a channel as a share of the widest one: a dead channel still needs a positive scale, and a very
small one makes the 32-bit bias overflow."""


def quantize_linear(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int) -> Tensor:
    """ONNX QuantizeLinear: divide, round half to even, add, saturate; ``zero_point`` has the dtype of the codes."""
    codes = torch.round(x / _shaped(x, scale, axis)) + _shaped(x, zero_point, axis)
    return codes.clamp(quant_min, quant_max).to(zero_point.dtype)


def dequantize_linear(codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    """ONNX DequantizeLinear: (codes - zero_point) x scale in float32; codes may be int8, uint8 or int32."""
    return (codes.to(torch.float32) - _shaped(codes, zero_point, axis)) * _shaped(codes, scale, axis)


def _shaped(x: Tensor, parameter: Tensor, axis: int) -> Tensor:
    """A scalar, or a vector of values for the channels on ``axis``, as it broadcasts with ``x``."""
    if parameter.ndim == 0:
        return parameter
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.view(shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class UniformQuantizer:
    """Integers at equal distances: real = scale x (code - zero_point).

    Attributes:
        bit_width: 2 to 8.
        signed: codes are in [-2^(b-1), 2^(b-1) - 1], stored as int8; otherwise [0, 2^b - 1], stored as uint8.
        symmetric: zero_point is 0 and the lowest signed code is not used, so that negation is exact.
        axis: dimension of the channels; None for one scale for the whole tensor.
        scale: positive, float32; (channels,), or a scalar where ``axis`` is None.
        zero_point: code of 0.0, in the shape of the scale.
    """

    kind: ClassVar[str] = "uniform"

    bit_width: int
    signed: bool
    symmetric: bool
    axis: int | None
    scale: Tensor
    zero_point: Tensor

    def __post_init__(self) -> None:
        check_bit_width(self.bit_width)
        shape = self.scale.shape
        if shape != self.zero_point.shape or len(shape) != (self.axis is not None) or not self.scale.numel():
            raise QuantizationError(
                f"{self.scale.numel()} scales and {self.zero_point.numel()} zero points for axis={self.axis}; give one "
                f"each per channel, or one in all without an axis"
            )
        if wrong := [scale for scale in self.scale.reshape(-1).tolist() if not 0 < scale < float("inf")]:
            raise QuantizationError(f"scale={wrong[0]} is not positive and finite; calibrate again")
        low, high = (0, 0) if self.symmetric and self.signed else (self.quant_min, self.quant_max)
        if wrong := [zero for zero in self.zero_point.reshape(-1).tolist() if not low <= zero <= high]:
            raise QuantizationError(
                f"zero_point={wrong[0]} is not allowed: a code from {self.quant_min} to {self.quant_max} is, "
                f"and 0 alone if symmetric"
            )
        object.__setattr__(self, "zero_point", self.zero_point.to(self.dtype))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UniformQuantizer) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

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
        check_bit_width(bit_width)
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
        shape = () if axis is None else (-1,)
        # runtimes compute with float32 scales, so the plan holds exactly those
        return cls(
            bit_width=bit_width,
            signed=signed,
            symmetric=symmetric,
            axis=axis,
            scale=scale.float().clamp(min=torch.finfo(torch.float32).tiny).reshape(shape),
            zero_point=zero_point.reshape(shape),
        )

    def quantize(self, x: Tensor) -> Tensor:
        """Codes (int8 or uint8) of real values; values out of range get the nearest end.

        Raises:
            QuantizationError: a tensor with another number of channels than there are scales.
        """
        return quantize_linear(x, *self._parameters(x), self.axis or 0, self.quant_min, self.quant_max)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Real values (float32) of codes."""
        return dequantize_linear(codes, *self._parameters(codes), self.axis or 0)

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Quantise and dequantise."""
        return self.dequantize(self.quantize(x))

    def _parameters(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point on the device of ``x``."""
        if self.axis is not None and x.shape[self.axis] != len(self.scale):
            raise QuantizationError(
                f"a tensor of shape {tuple(x.shape)} has {x.shape[self.axis]} channels on axis {self.axis}; the plan "
                f"has {len(self.scale)} scales"
            )
        return self.scale.to(x.device), self.zero_point.to(x.device)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "bit_width": self.bit_width,
            "signed": self.signed,
            "symmetric": self.symmetric,
            "axis": self.axis,
            "scale": self.scale.reshape(-1).tolist(),
            "zero_point": self.zero_point.reshape(-1).tolist(),
        }


def check_bit_width(bit_width: int) -> None:
    """
    Raises:
        QuantizationError: a bit width that is not supported.
    """
    if not MIN_BITS <= bit_width <= MAX_BITS:
        raise QuantizationError(f"bit_width={bit_width} is not supported; choose {MIN_BITS} to {MAX_BITS}")


def _positive(extent: Tensor) -> Tensor:
    """Extents with dead and nearly dead channels widened, see ``NARROWEST``."""
    widest = float(extent.max())
    return extent.clamp(min=widest * NARROWEST) if widest > 0 else torch.ones_like(extent)
