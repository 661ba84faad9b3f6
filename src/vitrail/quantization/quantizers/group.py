"""Group quantiser: a scale for every few weights of a channel; simulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from vitrail.core.errors import QuantizationError
from vitrail.quantization.quantizers.uniform import UniformQuantizer


@dataclass(frozen=True, kw_only=True)
class GroupQuantizer:
    """A weight (channels, ...) with one scale for each ``group_size`` consecutive elements of a channel.

    Attributes:
        group_size: number of elements that share a scale; the last group of a channel is padded with zeros.
        channels: number of channels of the weight, on axis 0.
        inner: quantiser of the groups, which are its channels.
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
        """Quantise and dequantise a weight (channels, ...)."""
        flat = self.inner.fake_quantize(self.groups(x)).reshape(self.channels, -1)
        return flat[:, : x[0].numel()].reshape(x.shape)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "group_size": self.group_size,
            "channels": self.channels,
            "inner": self.inner.to_dict(),
        }


def as_groups(weight: Tensor, group_size: int) -> Tensor:
    """A weight (channels, ...) as rows of ``group_size`` elements of one channel each, zeros after the last."""
    if group_size < 2:
        raise QuantizationError(f"group_size={group_size} is below 2; 32, 64 and 128 are usual")
    flat = weight.reshape(weight.shape[0], -1)
    return nn.functional.pad(flat, (0, -flat.shape[1] % group_size)).reshape(-1, group_size)
