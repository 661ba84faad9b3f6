"""The operations of quantisation in a graph, as PyTorch operators that trace, simulate, and translate to ONNX."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitrail.quantization.quantizers.kinds import Quantizer
from vitrail.quantization.quantizers.uniform import dequantize_linear, quantize_linear

_library = torch.library.Library("vitrail", "DEF")
_library.define("quantize(Tensor x, Tensor scale, Tensor zero_point, int axis, int quant_min, int quant_max) -> Tensor")
_library.define("dequantize(Tensor codes, Tensor scale, Tensor zero_point, int axis) -> Tensor")

for _key in ("CompositeExplicitAutograd", "Meta"):  # while a graph is traced, the same code finds shapes and dtypes
    torch.library.impl(_library, "quantize", _key)(quantize_linear)
    torch.library.impl(_library, "dequantize", _key)(dequantize_linear)

QUANTIZE = torch.ops.vitrail.quantize.default
DEQUANTIZE = torch.ops.vitrail.dequantize.default


class FakeQuantize(nn.Module):
    """A quantiser as a step of a graph that is simulated."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer.fake_quantize(x)
