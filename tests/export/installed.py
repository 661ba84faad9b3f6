"""Which optional exporters are here; continuous integration installs none of them."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Any

import pytest

NEEDS: dict[str, tuple[str, ...]] = {
    "executorch": ("executorch",),
    "litert": ("litert_torch", "ai_edge_litert"),
    "coreml": ("coremltools",),
}


def missing(format: str) -> str:
    """Why a format cannot be tried here, "" if it can."""
    lacking = [name for name in NEEDS.get(format, ()) if importlib.util.find_spec(name) is None]
    if format == "aoti" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        lacking.append("a C++ compiler")
    return f"optional, not installed: {', '.join(lacking)}" if lacking else ""


def where_installed(format: str, *values: Any, slow: bool = False, **named: Any) -> Any:
    """A parameter of a test that is left out, with its reason, where the format's extra is not installed."""
    reason = missing(format)
    marks = [pytest.mark.skipif(bool(reason), reason=reason)] + ([pytest.mark.slow] if slow else [])
    return pytest.param(format, *values, marks=marks, **named)
