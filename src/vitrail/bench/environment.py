"""What a measurement was taken on: enough to compare by, nothing that identifies a person or a machine."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("vitrail", "torch", "onnxruntime", "openvino", "numpy")
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm")
"""Processor features that decide how fast float and int8 arithmetic are."""


def environment() -> dict[str, Any]:
    """Processor, cores, memory, system, library versions and the time (UTC); no host name, no user, no paths."""
    cpu, features = _processor()
    return {
        "cpu": cpu,
        "cpu_features": [feature for feature in FEATURES if feature in features],
        "cores": psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        "logical_cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": _versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> tuple[str, set[str]]:
    """Model name and feature flags; Linux tells them in one file, elsewhere the name alone is known."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return name, flags
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = value
        elif key in ("flags", "Features"):
            flags = set(value.split())
    return name, flags
