"""Codes and scales as parameters of a training, with straight-through gradients of the rounding."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vitrail.quantization.config import MAX_BITS
from vitrail.quantization.graph.ops import QuantizedOp
from vitrail.quantization.plan import Rounding
from vitrail.quantization.quantizers.kinds import Quantizer
from vitrail.quantization.quantizers.uniform import UniformQuantizer

EDGE = 0.49
"""Largest distance of a trained real number from the code that it starts at."""


def round_through(x: Tensor) -> Tensor:
    """Round; the gradient is that of the identity (straight-through estimator)."""
    return x + (torch.round(x) - x).detach()


class TrainedWeight(nn.Module):
    """The weight of a dense layer, whose codes may move to a neighbour, and its bias.

    Attributes:
        codes: real numbers (outputs, d) that round to the codes. At first each is as near to the float weight as its
            code allows, so that codes that GPTQ has moved away from the float weight move back easily.
        bias: bias of the layer, (outputs,).
    """

    def __init__(
        self,
        op: QuantizedOp,
        weight: Tensor,
        bias: Tensor | None,
        quantizer: UniformQuantizer,
        start: Rounding | None = None,
    ) -> None:
        super().__init__()
        self.op = op
        self.quantizer = quantizer
        self.weight = weight
        self.scale = quantizer.scale[:, None]
        nearest = quantizer.quantize(weight)
        codes = op.matrix(nearest if start is None else start.codes(nearest)).float()
        target = op.matrix(weight) / self.scale
        # bounds are kept here and in descend(): a clamp in forward() would leave no gradient at the outermost codes
        self.lowest = (codes - 1).clamp(min=quantizer.quant_min)
        self.highest = (codes + 1).clamp(max=quantizer.quant_max)
        near = torch.maximum(torch.minimum(target, codes + EDGE), codes - EDGE)
        self.codes = nn.Parameter(torch.maximum(torch.minimum(near, self.highest), self.lowest))
        if start is not None and start.bias is not None:
            bias = start.bias
        self.bias = nn.Parameter(torch.zeros(len(codes)) if bias is None else bias.clone())

    def forward(self) -> Tensor:
        """The dequantised weight, in its own shape."""
        return self.op.unflatten_weight(round_through(self.codes) * self.scale, self.weight.shape)

    @torch.no_grad()
    def descend(self, rate: float) -> None:
        """One step against the sign of the gradient; no code leaves its neighbours."""
        assert self.codes.grad is not None
        self.codes.sub_(rate * self.codes.grad.sign())
        self.codes.copy_(torch.maximum(torch.minimum(self.codes, self.highest), self.lowest))
        self.codes.grad = None

    def rounding(self) -> Rounding:
        """The rounding as a plan keeps it."""
        stored = self.op.unflatten_weight(self.codes.detach().round().to(self.quantizer.dtype), self.weight.shape)
        return Rounding.of(stored, self.quantizer.quantize(self.weight), self.bias.detach().clone())


class TrainedScale(nn.Module):
    """Fake quantisation of an activation; the scale of uniform codes below 8 bits is trained.

    All others have a straight-through gradient: 8 bits are fine enough, and several layers share their operands.

    Attributes:
        log_scale: logarithm of the trained scale's factor.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.trained = isinstance(quantizer, UniformQuantizer) and quantizer.bit_width < MAX_BITS
        self.log_scale = nn.Parameter(torch.zeros(()), requires_grad=self.trained)

    def forward(self, x: Tensor) -> Tensor:
        quantizer = self.quantizer
        if not (self.trained and isinstance(quantizer, UniformQuantizer)):
            return x + (quantizer.fake_quantize(x.detach()) - x.detach())
        scale, zero_point = quantizer.scale * self.log_scale.exp(), quantizer.zero_point
        codes = round_through((x / scale + zero_point).clamp(quantizer.quant_min, quantizer.quant_max))
        return (codes - zero_point) * scale

    def result(self) -> Quantizer:
        """The quantiser with the trained scale."""
        quantizer = self.quantizer
        if not (self.trained and isinstance(quantizer, UniformQuantizer)):
            return quantizer
        return replace(quantizer, scale=quantizer.scale * self.log_scale.detach().exp())
