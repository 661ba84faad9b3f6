"""Artefacts of a run that never was, with a class name that means harm."""

from __future__ import annotations

from typing import Any

from vitrail.bench import BenchResult

HOSTILE = '<script>alert("1")</script>'
CLASSES = ["cat", HOSTILE, "dog & 'co'"]
PIXEL = "/9j/4AAQ"  # not a whole JPEG; pages only carry it


def report(top1: float, agreement: float) -> dict[str, Any]:
    return {
        "top1": top1,
        "top5": 1.0,
        "loss": 0.51,
        "ece": 0.043,
        "num_images": 12,
        "per_class": [{"name": n, "precision": 0.5, "recall": 0.75, "f1": 0.6, "support": 4} for n in CLASSES],
        "confusion": [[4, 0, 0], [1, 3, 0], [0, 2, 2]],
        "calibration": [{"low": 0.4, "high": 0.6, "confidence": 0.5, "accuracy": 0.6, "count": 12}],
        "agreement": agreement,
    }


def row(name: str, milliseconds: float | None, **values: Any) -> BenchResult:
    runtime, variant = name.split()
    timed = {} if milliseconds is None else {
        "latency_ms_median": milliseconds, "latency_ms_p90": milliseconds * 1.1, "cpu_ms_median": milliseconds,
        "latency_ratio": milliseconds / 10, "cpu_ratio": milliseconds / 10, "load_ms": 20.0, "peak_memory_mb": 80.0,
        "size_bytes": 4_000_000, "num_runs": 50,
    }  # fmt: skip
    place = {
        "cpu": "Quiet Processor 9000", "cpu_features": ["avx2"], "cores": 2, "logical_cores": 4, "memory_gb": 8.0,
        "system": "Linux x86_64", "python": "3.11.7", "versions": {"torch": "2.15.0"},
        "date": "2026-11-21T00:00:00+00:00",
    }  # fmt: skip
    return BenchResult(
        name=name, runtime=runtime, variant=variant, image_size=(48, 32), environment=place, **timed, **values
    )
