"""Every image file is decoded once before it is used; the result is kept until the file changes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vitrail.core.errors import DataError, VitrailError
from vitrail.core.faults import find_fault
from vitrail.core.files import read_text, write_text
from vitrail.core.parse import parse_json
from vitrail.core.paths import cache_folder
from vitrail.core.progress import track
from vitrail.data.pixels.decode import DeepPixels, inspect_image, libjpeg_words, read_image

CACHE_VERSION = 2
"""To be raised when the decoder accepts other files than before."""

CHUNK = 256
"""Files that are queued at once: an interruption waits for no more than these, and a million would take memory."""


@dataclass(frozen=True)
class FileCheck:
    """Result of decoding one file.

    Attributes:
        size: bytes.
        modified: time of the last change, in nanoseconds.
        digest: SHA-256 of the contents.
        problem: why it cannot be decoded, or None.
        damage: what libjpeg says about a JPEG file that it decodes in spite of it, or "".
        deep: values of an image with more than 8 bits, else None.
    """

    size: int
    modified: int
    digest: str
    problem: str | None
    damage: str = ""
    deep: DeepPixels | None = None


def check_files(root: Path, names: Sequence[str], *, max_pixels: int, progress: bool = False) -> list[FileCheck]:
    """Decode every file of ``names`` (relative to ``root``) that has changed since it was last decoded."""
    cache = _cache_path(root, max_pixels)
    known = _read_cache(cache)
    with ThreadPoolExecutor(max_workers=num_threads()) as pool:
        results = (
            check
            for start in range(0, len(names), CHUNK)
            for check in _check_chunk(pool, root, names[start : start + CHUNK], max_pixels, known)
        )
        steps = track(results, "Checking images", total=len(names), progress=progress)
        checks = dict(zip(names, steps, strict=True))
    if not checks.items() <= known.items():
        others = {name: check for name, check in _read_cache(cache).items() if (root / name).exists()}
        _write_cache(cache, others | checks)  # other processes may have checked other files meanwhile
    return [checks[name] for name in names]


def _check_chunk(
    pool: ThreadPoolExecutor, root: Path, names: Sequence[str], max_pixels: int, known: Mapping[str, FileCheck]
) -> list[FileCheck]:
    """Threads share the standard error: where libjpeg has said something, the files are decoded again one by one."""
    with libjpeg_words() as words:
        checks = list(pool.map(lambda name: _check(root / name, max_pixels, known.get(name)), names))
    if not words:
        return checks
    for index, (name, check) in enumerate(zip(names, checks, strict=True)):
        if check is not known.get(name) and check.problem is None:
            with libjpeg_words() as words:
                _check(root / name, max_pixels, None)
            checks[index] = replace(check, damage="; ".join(dict.fromkeys(words)))
    return checks


def _check(path: Path, max_pixels: int, known: FileCheck | None) -> FileCheck:
    try:
        status = path.stat()
        if known is not None and (known.size, known.modified) == (status.st_size, status.st_mtime_ns):
            return known
        data = read_image(path, max_pixels)
    except OSError as error:
        return FileCheck(size=0, modified=0, digest="", problem=f"cannot be read: {error.strerror or error}")
    except DataError as error:
        return FileCheck(size=0, modified=0, digest="", problem=_reason(error, f"{path} "))
    problem, deep, modified = None, None, status.st_mtime_ns
    try:
        deep = inspect_image(data, max_pixels)
    except DataError as error:
        problem = _reason(error, "image ")
        if find_fault(error) is not None:
            modified = 0  # with more memory it may be decoded next time
    digest = hashlib.sha256(data).hexdigest()
    return FileCheck(size=len(data), modified=modified, digest=digest, problem=problem, deep=deep)


def _reason(error: DataError, subject: str) -> str:
    return str(error).removeprefix(subject).split(";")[0]


def num_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cache_path(root: Path, max_pixels: int) -> Path:
    key = hashlib.sha256(f"{CACHE_VERSION}\0{max_pixels}\0{root}".encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder("checked") / f"{key[:24]}.json"


def _read_cache(path: Path) -> dict[str, FileCheck]:
    try:
        values: dict[str, dict[str, Any]] = parse_json(read_text(path))
        return {
            name: FileCheck(**value | {"deep": DeepPixels(**value["deep"]) if value["deep"] else None})
            for name, value in values.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}  # without the cache the files are decoded again


def _write_cache(path: Path, checks: dict[str, FileCheck]) -> None:
    # a full or read-only disk costs time on the next call, nothing else
    with suppress(VitrailError, UnicodeEncodeError):
        write_text(path, json.dumps({name: asdict(check) for name, check in checks.items()}))
