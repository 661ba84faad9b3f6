"""Post-training quantisation: quantisers, observers, calibration, the plan, the rewritten graph."""

from vitrail.quantization.config import OBSERVERS, PRESETS, QuantizationConfig
from vitrail.quantization.graph.capture import capture
from vitrail.quantization.graph.usable import OneOutput, check_usable
from vitrail.quantization.plan import QuantizationPlan
from vitrail.quantization.quantize import QuantizedModel, quantize
from vitrail.quantization.quantizers.group import GroupQuantizer
from vitrail.quantization.quantizers.kinds import Quantizer
from vitrail.quantization.quantizers.log import LogQuantizer
from vitrail.quantization.quantizers.observers import observe_channels, observe_tensor
from vitrail.quantization.quantizers.outlier import OutlierQuantizer
from vitrail.quantization.quantizers.two_scale import TwoScaleQuantizer
from vitrail.quantization.quantizers.uniform import UniformQuantizer

__all__ = [
    "OBSERVERS",
    "PRESETS",
    "GroupQuantizer",
    "LogQuantizer",
    "OneOutput",
    "OutlierQuantizer",
    "QuantizationConfig",
    "QuantizationPlan",
    "QuantizedModel",
    "Quantizer",
    "TwoScaleQuantizer",
    "UniformQuantizer",
    "capture",
    "check_usable",
    "observe_channels",
    "observe_tensor",
    "quantize",
]
