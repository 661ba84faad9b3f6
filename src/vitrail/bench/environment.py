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
from vitrail.runtimes.processor import processor


def environment() -> dict[str, Any]:
    """Processor, cores, memory, system, libraries, allocator, settings, the time (UTC); no host, no user, no paths."""
    cpu, features = processor()
    return {
        "cpu": cpu,
        "cpu_features": list(features),
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
