"""The processor of this machine, as far as its model's name and its features for arithmetic go."""

from __future__ import annotations

import platform
from pathlib import Path

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm")
"""Processor features that decide how fast float and int8 arithmetic are."""

EXACT = {"avx512_vnni", "avx_vnni", "amx_int8"}
"""Features of x86 that add 8-bit products in 32 bits. With AVX2 alone ONNX Runtime adds two of them in 16 bits."""


def processor() -> tuple[str, tuple[str, ...]]:
    """Model name, and those of :data:`FEATURES` that it has; Linux tells both, elsewhere the name alone is known."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return name, ()
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = value
        elif key in ("flags", "Features"):
            flags = set(value.split())
    return name, tuple(feature for feature in FEATURES if feature in flags)


def saturates(features: tuple[str, ...] | list[str]) -> bool:
    """Whether sums of products of uint8 and int8 saturate in ONNX Runtime on a processor with these features."""
    return "avx2" in features and not EXACT & set(features)
