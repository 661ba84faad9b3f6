"""Vitrail: from a folder of images to a vision transformer measured on the device that will run it.

The public names are looked up on first use, so that a process which needs only a part of the package (a measurement of
ONNX Runtime's memory, ``vitrail --help``) does not load PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.data import load_data
    from vitrail.evaluation import evaluate
    from vitrail.export import export_model
    from vitrail.models import create_model, list_models, load_checkpoint
    from vitrail.quantization import quantize
    from vitrail.report import write_report
    from vitrail.runs.bench import bench_run as benchmark
    from vitrail.tasks import load_task
    from vitrail.training import train

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "benchmark",
    "create_model",
    "evaluate",
    "export_model",
    "list_models",
    "load_checkpoint",
    "load_data",
    "load_task",
    "quantize",
    "train",
    "write_report",
]

_HOMES = {
    "benchmark": "vitrail.runs.bench:bench_run",
    "create_model": "vitrail.models:create_model",
    "evaluate": "vitrail.evaluation:evaluate",
    "export_model": "vitrail.export:export_model",
    "list_models": "vitrail.models:list_models",
    "load_checkpoint": "vitrail.models:load_checkpoint",
    "load_data": "vitrail.data:load_data",
    "load_task": "vitrail.tasks:load_task",
    "quantize": "vitrail.quantization:quantize",
    "train": "vitrail.training:train",
    "write_report": "vitrail.report:write_report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitrail' has no attribute '{name}'")
    module, attribute = _HOMES[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
