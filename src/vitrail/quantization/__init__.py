"""Integers instead of floats: quantisers, observers, calibration, the plan, the rewritten graph."""

from vitrail.quantization.graph import capture
from vitrail.quantization.observers import OBSERVERS, MinMaxObserver, Observer
from vitrail.quantization.plan import QuantizationConfig, QuantizationPlan
from vitrail.quantization.quantize import QuantizedModel, quantize
from vitrail.quantization.quantizers import UniformQuantizer

__all__ = [
    "OBSERVERS",
    "MinMaxObserver",
    "Observer",
    "QuantizationConfig",
    "QuantizationPlan",
    "QuantizedModel",
    "UniformQuantizer",
    "capture",
    "quantize",
]
