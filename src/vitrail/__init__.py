"""Vitrail: vision transformers trained on a folder of images and measured on the device that will run them.

The public names are imported on first use, so that a process that needs only a part of the package (a measurement of
ONNX Runtime's memory, ``vitrail --help``) does not load PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.bench import BenchConfig
    from vitrail.compare import ComparePlan
    from vitrail.core.import_code import import_code
    from vitrail.data import AugmentConfig, DataConfig, load_data
    from vitrail.evaluation import RobustnessConfig, evaluate
    from vitrail.export import export_model
    from vitrail.face import TrainedRun, check_data, open_run, probe, train
    from vitrail.face_tune import Tuned, tune
    from vitrail.models import create_model, list_models, load_checkpoint
    from vitrail.quantization import QuantizationConfig, quantize
    from vitrail.report.model_table import recommend_models
    from vitrail.report.recommendation import Limits
    from vitrail.runs.drift import DriftConfig, measure_drift
    from vitrail.runs.elsewhere import EvaluateConfig
    from vitrail.runs.probe import ProbeConfig
    from vitrail.runs.quantize import CalibrationConfig
    from vitrail.runs.trust import TrustConfig, fit_trust
    from vitrail.runs.whole_way import WholeWayConfig
    from vitrail.serve.browser import BrowserConfig
    from vitrail.soundness import CheckConfig
    from vitrail.tasks.register import register
    from vitrail.training import TrainConfig

__version__ = "0.2.0"

_HOMES = {
    "AugmentConfig": "data",
    "BenchConfig": "bench",
    "BrowserConfig": "serve.browser",
    "CalibrationConfig": "runs.quantize",
    "CheckConfig": "soundness",
    "ComparePlan": "compare",
    "DataConfig": "data",
    "DriftConfig": "runs.drift",
    "EvaluateConfig": "runs.elsewhere",
    "Limits": "report.recommendation",
    "ProbeConfig": "runs.probe",
    "QuantizationConfig": "quantization",
    "RobustnessConfig": "evaluation",
    "TrainConfig": "training",
    "TrainedRun": "face",
    "TrustConfig": "runs.trust",
    "Tuned": "face_tune",
    "WholeWayConfig": "runs.whole_way",
    "check_data": "face",
    "create_model": "models",
    "evaluate": "evaluation",
    "export_model": "export",
    "fit_trust": "runs.trust",
    "import_code": "core.import_code",
    "list_models": "models",
    "load_checkpoint": "models",
    "load_data": "data",
    "measure_drift": "runs.drift",
    "open_run": "face",
    "probe": "face",
    "quantize": "quantization",
    "recommend_models": "report.model_table",
    "register": "tasks.register",
    "train": "face",
    "tune": "face_tune",
}
"""Public name -> module that has it."""

__all__ = [
    "AugmentConfig",
    "BenchConfig",
    "BrowserConfig",
    "CalibrationConfig",
    "CheckConfig",
    "ComparePlan",
    "DataConfig",
    "DriftConfig",
    "EvaluateConfig",
    "Limits",
    "ProbeConfig",
    "QuantizationConfig",
    "RobustnessConfig",
    "TrainConfig",
    "TrainedRun",
    "TrustConfig",
    "Tuned",
    "WholeWayConfig",
    "__version__",
    "check_data",
    "create_model",
    "evaluate",
    "export_model",
    "fit_trust",
    "import_code",
    "list_models",
    "load_checkpoint",
    "load_data",
    "measure_drift",
    "open_run",
    "probe",
    "quantize",
    "recommend_models",
    "register",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitrail' has no attribute '{name}'")
    return getattr(importlib.import_module(f"vitrail.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
