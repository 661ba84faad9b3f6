"""Quantisers whose codes are not evenly spaced: simulated, since no runtime multiplies such codes as integers.

Each has ``kind``, ``bit_width``, ``fake_quantize`` and ``to_dict`` as
:class:`~vitrail.quantization.quantizers.UniformQuantizer` has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vitrail.core.errors import QuantizationError
from vitrail.quantization.quantizers import MAX_BITS, MIN_BITS, UniformQuantizer


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
        _check_bits(self.bit_width)
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
        """What is left of real values after a trip through the codes."""
        return self.dequantize(self.quantize(x))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind} | asdict(self)


@dataclass(frozen=True, kw_only=True)
class TwoScaleQuantizer:
    """Two regions with a step each: one bit of a code names the region, the others count steps in it.

    The steps differ by a power of two, so an integer unit aligns the regions by a shift. Sources: PTQ4ViT's twin
    uniform quantiser, arXiv:2111.12293 (regions by "sign"); V-2SF of TSPTQ-ViT and OPT-m of MPTQ-ViT,
    arXiv:2401.14895 (regions by "magnitude").

    Attributes:
        bit_width: 3 to 8, the region's bit included.
        regions: "magnitude": fine steps near zero, coarse ones for large values; "sign": fine steps for negative,
            coarse ones for positive values.
        fine_scale: step of the fine region, positive.
        ratio_exponent: m; the coarse step is ``fine_scale * 2**m``.
        signed: with regions by magnitude: half of the fine codes are negative.
    """

    kind: ClassVar[str] = "two_scale"

    bit_width: int
    regions: Literal["magnitude", "sign"]
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
        """Each value's nearest code of both regions; the fine one where both are as near."""
        fine = torch.round(x / self.fine_scale).clamp_(*self.fine_codes).mul_(self.fine_scale)
        coarse = torch.round(x / self.coarse_scale).clamp_(*self.coarse_codes).mul_(self.coarse_scale)
        return torch.where((x - coarse).abs() < (x - fine).abs(), coarse, fine)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind} | asdict(self)


@dataclass(frozen=True, kw_only=True)
class GroupQuantizer:
    """A weight (channels, ...) with one scale for each ``group_size`` consecutive elements of a channel.

    Attributes:
        group_size: elements that share a scale; the last group of a channel may be shorter, padded by zeros.
        channels: of the weight, on axis 0.
        inner: the quantiser of the groups, one channel each.
    """

    kind: ClassVar[str] = "group"

    group_size: int
    channels: int
    inner: UniformQuantizer

    @property
    def bit_width(self) -> int:
        return self.inner.bit_width

    def groups(self, weight: Tensor) -> Tensor:
        """The weight's groups (channels * groups a channel, group_size)."""
        return as_groups(weight, self.group_size)

    def fake_quantize(self, x: Tensor) -> Tensor:
        """What is left of a weight (channels, ...) after a trip through the codes."""
        flat = self.inner.fake_quantize(self.groups(x)).reshape(self.channels, -1)
        return flat[:, : x[0].numel()].reshape(x.shape)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "group_size": self.group_size,
            "channels": self.channels,
            "inner": self.inner.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class OutlierQuantizer:
    """Even steps for a tensor whose channels are on the last axis, with larger ones for a few outlying channels.

    Source: O-2SF of TSPTQ-ViT, which MPTQ-ViT builds on, arXiv:2401.14895.

    Attributes:
        inner: of the other channels, one scale.
        outliers: indices of the outlying channels.
        ratio_exponent: m; their step is 2**m times as large.
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
        """How much larger each channel's step is, (num_channels,).

        Raises:
            QuantizationError: an outlying channel that the tensor does not have.
        """
        if max(self.outliers, default=0) >= num_channels:
            raise QuantizationError(f"channel {max(self.outliers)} of {num_channels} does not exist; quantise again")
        factors = torch.ones(num_channels)
        factors[list(self.outliers)] = 2.0**self.ratio_exponent
        return factors

    def fake_quantize(self, x: Tensor) -> Tensor:
        """What is left of real values (..., channels) after a trip through the codes."""
        factors = self.factors(x.shape[-1])
        return self.inner.fake_quantize(x / factors) * factors

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "outliers": list(self.outliers),
            "ratio_exponent": self.ratio_exponent,
            "inner": self.inner.to_dict(),
        }


def as_groups(weight: Tensor, group_size: int) -> Tensor:
    """A weight (channels, ...) as rows of ``group_size`` elements of one channel each, zeros after the last."""
    if group_size < 2:
        raise QuantizationError(f"group_size={group_size} is below 2; 32, 64 and 128 are usual")
    flat = weight.reshape(weight.shape[0], -1)
    return nn.functional.pad(flat, (0, -flat.shape[1] % group_size)).reshape(-1, group_size)


Quantizer = UniformQuantizer | LogQuantizer | TwoScaleQuantizer | OutlierQuantizer | GroupQuantizer

KINDS: dict[str, Any] = {
    cls.kind: cls for cls in (UniformQuantizer, LogQuantizer, TwoScaleQuantizer, OutlierQuantizer, GroupQuantizer)
}


def quantizer_from_dict(values: Mapping[str, Any]) -> Quantizer:
    """The inverse of every quantiser's ``to_dict``.

    Raises:
        QuantizationError: an unknown kind, or values that its quantiser refuses.
        KeyError, TypeError: entries are missing, or of the wrong kind.
    """
    kind = values.get("kind")
    if kind not in KINDS:
        raise QuantizationError(f"unknown kind of quantiser '{kind}'; known: {', '.join(KINDS)}")
    fields = {name: value for name, value in values.items() if name != "kind"}
    if kind == UniformQuantizer.kind:
        fields |= {"scale": tuple(fields["scale"]), "zero_point": tuple(fields["zero_point"])}
    if kind == OutlierQuantizer.kind:
        fields["outliers"] = tuple(fields["outliers"])
    if kind in (GroupQuantizer.kind, OutlierQuantizer.kind):
        fields["inner"] = quantizer_from_dict(fields["inner"])
    result: Quantizer = KINDS[kind](**fields)
    return result


class FakeQuantize(nn.Module):
    """A quantiser as a step of a graph that is simulated."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer.fake_quantize(x)


def _check_bits(bit_width: int) -> None:
    if not MIN_BITS <= bit_width <= MAX_BITS:
        raise QuantizationError(f"bit_width={bit_width} is not supported; choose {MIN_BITS} to {MAX_BITS}")
