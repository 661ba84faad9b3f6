"""How our two quantisation operations are written in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxscript import opset20 as op

from vitrail.quantization.graph.qdq_ops import DEQUANTIZE, QUANTIZE

FLOAT = 1
"""Number of float32 in ONNX."""

FULL_RANGES = ((-127, 127), (-128, 127), (0, 255))
"""Code ranges for which saturation of the 8-bit type is enough; -128 is reached only by values below the range."""


def quantize_linear(x: Any, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int) -> Any:
    """QuantizeLinear; before fewer than 8 bits a Clip of the values, so that no other code can come out."""
    if (quant_min, quant_max) not in FULL_RANGES:
        zero = op.Cast(zero_point, to=FLOAT)
        bounds: list[Any] = [op.Constant(value_float=float(bound)) for bound in (quant_min, quant_max)]
        low, high = (op.Mul(op.Sub(bound, zero), scale) for bound in bounds)
        x = op.Clip(x, low, high)
    return op.QuantizeLinear(x, scale, zero_point, axis=axis)


def dequantize_linear(codes: Any, scale: Any, zero_point: Any, axis: int) -> Any:
    """DequantizeLinear."""
    return op.DequantizeLinear(codes, scale, zero_point, axis=axis)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {QUANTIZE: quantize_linear, DEQUANTIZE: dequantize_linear}
