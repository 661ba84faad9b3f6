"""The machine and software of a measurement, without anything that identifies a person or a machine."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from vitrail.runtimes import RUNTIMES

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm")
"""Processor features that decide how fast float and int8 arithmetic are."""


def environment() -> dict[str, Any]:
    """Processor, cores, memory, system, libraries, allocator, settings, the time (UTC); no host, no user, no paths."""
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
        "allocator": _allocator(),
        "settings": {name: os.environ[name] for name in sorted(os.environ) if _is_setting(name)},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _allocator() -> str:
    """The library that ``malloc`` comes from, which can change latency by a third, with its settings."""
    preloaded = re.split(r"[ :]", os.environ.get("LD_PRELOAD", ""))
    names = [Path(path).name for path in preloaded if re.search("jemalloc|tcmalloc|mimalloc|hoard", path)]
    return ", ".join(names) or " ".join(platform.libc_ver()).strip() or "the system's"


def _is_setting(name: str) -> bool:
    """Whether an environment variable changes threads or memory; values with folders in them stay here."""
    return bool(re.match("OMP_|KMP_|GOMP_|MKL_NUM|OPENBLAS_NUM|MALLOC_", name)) and "/" not in os.environ[name]


def _versions() -> dict[str, str]:
    found = {}
    for package in ("vitrail", *dict.fromkeys(known.package for known in RUNTIMES.values() if known.package), "numpy"):
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
