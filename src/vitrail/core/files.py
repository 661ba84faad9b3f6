"""Atomic file access: a file gets its name only when it is complete."""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitrail.core.errors import VitrailError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it when the block ends without an error.

    The temporary name keeps the suffix, because some writers choose the format by it.

    Raises:
        VitrailError: the folder is not writable or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise VitrailError(f"cannot write {path}: {error.strerror}; free space or choose another folder") from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise VitrailError(f"cannot write {path}: {reason}; free space or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A path of the same name in a temporary folder beside ``path``, for a folder or several files.

    When the block ends without an error, all contents of the temporary folder are moved beside ``path``, ``path``
    itself last; files and folders of the same name are replaced.

    Raises:
        VitrailError: the folder is not writable or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as name:
            draft = Path(name) / path.name
            yield draft
            for part in sorted(draft.parent.iterdir(), key=lambda part: part == draft):
                _replace(part, path.parent / part.name)
    except OSError as error:
        reason = error.strerror or error
        raise VitrailError(f"cannot write {path}: {reason}; free space or choose another folder") from error


def _replace(part: Path, target: Path) -> None:
    """Rename, also over a folder with contents, which the system refuses."""
    if part.is_file():
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~_umask())
    if part.is_dir() and target.is_dir():
        old = target.rename(part.with_name(f".{target.name}-old"))
        part.rename(target)
        shutil.rmtree(old)
    else:
        os.replace(part, target)


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        VitrailError: a folder above is not writable, or is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VitrailError(f"cannot write {path}: {error.strerror}; choose another folder") from error


def temporary_paths(path: Path) -> list[Path]:
    """What :func:`atomic_path` and :func:`atomic_folder` have beside ``path`` before they rename it."""
    prefix = f".{glob.escape(path.stem)}-" + "[a-z0-9_]" * 8
    files = path.parent.glob(prefix + glob.escape(path.suffix)) if path.suffix else ()
    return [*files, *(found for found in path.parent.glob(prefix) if found.is_dir())]


def remove(path: Path) -> None:
    """Delete a file, or a folder with its contents, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def file_hash(path: str | Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256, which identify the file of a result."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, indented; see :func:`json_text`."""
    write_text(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON that every reader takes, non-ASCII kept readable.

    JSON has no infinity and no NaN: such a number becomes null, as one that is not known.
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(finite_only(value), indent=indent, ensure_ascii=False, allow_nan=False)


def finite_only(value: Any) -> Any:
    """Plain values in which every number that is not finite is None."""
    if isinstance(value, Mapping):
        return {key: finite_only(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite_only(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        VitrailError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise VitrailError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise VitrailError(f"{path} is not JSON: {error}") from error
