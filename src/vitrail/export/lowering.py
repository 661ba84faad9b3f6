"""How our two quantisation operations are written in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxscript import opset20 as op

from vitrail.quantization.operations import DEQUANTIZE, QUANTIZE

FULL_RANGES = ((-127, 127), (-128, 127), (0, 255))
"""Code ranges for which saturation of the 8-bit type is enough; -128 is reached only by values below the range."""


def quantize_linear(x: Any, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int) -> Any:
    """QuantizeLinear, and for fewer than 8 bits a Clip of the codes, as ONNX has no narrower activations."""
    codes = op.QuantizeLinear(x, scale, zero_point, axis=axis)
    if (quant_min, quant_max) in FULL_RANGES:
        return codes
    constants: list[Any] = [op.Constant(value_int=bound) for bound in (quant_min, quant_max)]
    low, high = (op.CastLike(constant, codes) for constant in constants)
    return op.Clip(codes, low, high)


def dequantize_linear(codes: Any, scale: Any, zero_point: Any, axis: int) -> Any:
    """DequantizeLinear."""
    return op.DequantizeLinear(codes, scale, zero_point, axis=axis)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {QUANTIZE: quantize_linear, DEQUANTIZE: dequantize_linear}
