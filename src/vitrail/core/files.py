"""Atomic file access: a file gets its name only when it is complete."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def file_hash(path: str | Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256, which identify the file of a result."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; what is no UTF-8 in a file name is written as ``\\udcff``,
    which JSON reads back.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, indented, non-ASCII kept readable."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


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
