"""Codes and steps as parameters of a training: rounding lets gradients pass."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vitrail.quantization.nonuniform import Quantizer
from vitrail.quantization.plan import Rounded
from vitrail.quantization.quantizers import MAX_BITS, UniformQuantizer
from vitrail.quantization.sites import Site

EDGE = 0.49
"""How far from its code a real number may lie that rounds to it."""


def round_through(x: Tensor) -> Tensor:
    """Round; the gradient passes as if it had not been done."""
    return x + (torch.round(x) - x).detach()


class TrainedWeight(nn.Module):
    """The weight of a dense layer, whose codes may move to a neighbour, and its bias.

    Attributes:
        codes: real numbers (outputs, d) that round to the codes. At first each is as near to the float weight as its
            code allows, so that codes that second-order rounding has chosen against the float weight move back easily.
        bias: (outputs,).
    """

    def __init__(
        self, site: Site, weight: Tensor, bias: Tensor | None, quantizer: UniformQuantizer, start: Rounded | None
    ) -> None:
        super().__init__()
        self.site = site
        self.quantizer = quantizer
        self.weight = weight
        self.scale = torch.tensor(quantizer.scale)[:, None]
        nearest = quantizer.quantize(weight)
        codes = site.matrix(nearest if start is None else start.codes(nearest)).float()
        wished = site.matrix(weight) / self.scale
        # bounds are kept here and in descend(): a clamp in forward() would leave no gradient at the outermost codes
        self.lowest = (codes - 1).clamp(min=quantizer.quant_min)
        self.highest = (codes + 1).clamp(max=quantizer.quant_max)
        near = torch.maximum(torch.minimum(wished, codes + EDGE), codes - EDGE)
        self.codes = nn.Parameter(torch.maximum(torch.minimum(near, self.highest), self.lowest))
        if start is not None and start.bias is not None:
            bias = torch.tensor(start.bias)
        self.bias = nn.Parameter(torch.zeros(len(codes)) if bias is None else bias.clone())

    def forward(self) -> Tensor:
        """What the codes mean, in the weight's own shape."""
        return self.site.weight(round_through(self.codes) * self.scale, self.weight.shape)

    @torch.no_grad()
    def descend(self, rate: float) -> None:
        """One step against the sign of the gradient; no code leaves its neighbours."""
        assert self.codes.grad is not None
        self.codes.sub_(rate * self.codes.grad.sign())
        self.codes.copy_(torch.maximum(torch.minimum(self.codes, self.highest), self.lowest))
        self.codes.grad = None

    def rounded(self) -> Rounded:
        """What a plan keeps."""
        stored = self.site.weight(self.codes.detach().round().to(self.quantizer.dtype), self.weight.shape)
        return Rounded.of(stored, self.quantizer.quantize(self.weight), self.bias.detach())


class TrainedStep(nn.Module):
    """Codes of an activation; the step of even ones below 8 bits is trained.

    The others let gradients pass: 8 bits are fine enough, and their operands are shared by several layers.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.trained = isinstance(quantizer, UniformQuantizer) and quantizer.bit_width < MAX_BITS
        self.logarithm = nn.Parameter(torch.zeros(()), requires_grad=self.trained)

    def forward(self, x: Tensor) -> Tensor:
        quantizer = self.quantizer
        if not (self.trained and isinstance(quantizer, UniformQuantizer)):
            return x + (quantizer.fake_quantize(x.detach()) - x.detach())
        scale, zero_point = quantizer.scale[0] * self.logarithm.exp(), quantizer.zero_point[0]
        codes = round_through((x / scale + zero_point).clamp(quantizer.quant_min, quantizer.quant_max))
        return (codes - zero_point) * scale

    def tuned(self) -> Quantizer:
        """With the trained step."""
        quantizer = self.quantizer
        if not (self.trained and isinstance(quantizer, UniformQuantizer)):
            return quantizer
        return replace(quantizer, scale=(float(torch.tensor(quantizer.scale[0]) * self.logarithm.detach().exp()),))
