"""Integers instead of floats: quantisers, observers, calibration, the plan, the rewritten graph."""

from vitrail.quantization.config import PRESETS, QuantizationConfig
from vitrail.quantization.graph import capture
from vitrail.quantization.nonuniform import GroupQuantizer, LogQuantizer, OutlierQuantizer, Quantizer, TwoScaleQuantizer
from vitrail.quantization.observers import OBSERVERS, observe_channels, observe_tensor
from vitrail.quantization.plan import QuantizationPlan
from vitrail.quantization.quantize import QuantizedModel, quantize
from vitrail.quantization.quantizers import UniformQuantizer

__all__ = [
    "OBSERVERS",
    "PRESETS",
    "GroupQuantizer",
    "LogQuantizer",
    "OutlierQuantizer",
    "QuantizationConfig",
    "QuantizationPlan",
    "QuantizedModel",
    "Quantizer",
    "TwoScaleQuantizer",
    "UniformQuantizer",
    "capture",
    "observe_channels",
    "observe_tensor",
    "quantize",
]
