"""Vitrail: from a folder of images to a vision transformer measured on the device that will run it.

The public names are looked up on first use, so that a process which needs only a part of the package (a measurement of
ONNX Runtime's memory, ``vitrail --help``) does not load PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.models import create_model, list_models, load_checkpoint

__version__ = "0.1.0"

__all__ = ["__version__", "create_model", "list_models", "load_checkpoint"]

_HOMES = {"create_model": "vitrail.models", "list_models": "vitrail.models", "load_checkpoint": "vitrail.models"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitrail' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
