"""The two graph operations of quantisation, as PyTorch operators that trace, simulate, and translate to ONNX."""

from __future__ import annotations

import torch
from torch import Tensor


def _shaped(x: Tensor, parameter: Tensor, axis: int) -> Tensor:
    if parameter.ndim == 0:
        return parameter
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.view(shape)


_library = torch.library.Library("vitrail", "DEF")
_library.define("quantize(Tensor x, Tensor scale, Tensor zero_point, int axis, int quant_min, int quant_max) -> Tensor")
_library.define("dequantize(Tensor codes, Tensor scale, Tensor zero_point, int axis) -> Tensor")


@torch.library.impl(_library, "quantize", "CompositeExplicitAutograd")
def _quantize(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int) -> Tensor:
    """ONNX QuantizeLinear: divide, round half to even, add, saturate; ``zero_point`` has the dtype of the codes."""
    codes = torch.round(x / _shaped(x, scale, axis)) + _shaped(x, zero_point, axis)
    return codes.clamp(quant_min, quant_max).to(zero_point.dtype)


@torch.library.impl(_library, "dequantize", "CompositeExplicitAutograd")
def _dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    """ONNX DequantizeLinear: (codes - zero_point) x scale in float32; codes may be int8, uint8 or int32."""
    return (codes.to(torch.float32) - _shaped(codes, zero_point, axis)) * _shaped(codes, scale, axis)


# while a graph is traced only shapes and dtypes count, and the same code finds them
torch.library.impl(_library, "quantize", "Meta")(_quantize)
torch.library.impl(_library, "dequantize", "Meta")(_dequantize)


QUANTIZE = torch.ops.vitrail.quantize.default
DEQUANTIZE = torch.ops.vitrail.dequantize.default
