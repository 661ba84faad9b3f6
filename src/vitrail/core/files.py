"""Files: a written one gets its name only when it is complete, and what is read is limited.

Files may come from anybody. A named pipe or a device would never end, so only regular files are read, up to a size;
:mod:`vitrail.core.parse` limits how deep their contents may be nested.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import json
import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import lock_descriptor

from vitrail.core.errors import VitrailError
from vitrail.core.parse import LimitError, parse_json, parse_yaml

MAX_BYTES = 4 * 2**30
"""Size of the largest file that is read as a whole; the annotations of the largest public data sets have 1 GiB."""

NONBLOCK = getattr(os, "O_NONBLOCK", 0)
"""Flag that opens a named pipe without waiting; Windows has neither."""

MAX_YAML_BYTES = 4 * 2**20
"""Size of the largest YAML file; the names of 50,000 classes have less."""


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


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a file for reading in binary mode.

    Raises:
        OSError: it cannot be opened, or is not a regular file; pipes and devices are not waited for.
    """
    check_regular(path)
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | NONBLOCK))  # noqa: SIM115 (returned)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()  # it was replaced since the check
        check_regular(path)
    return file


def check_regular(path: str | Path) -> None:
    """Check that a library may open a file.

    Raises:
        OSError: the path leads to nothing, to a folder, or to a pipe, device or socket.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = "named pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
        raise OSError(errno.EINVAL, f"it is a {kind} and no regular file, save its contents as a file", str(path))


def read_bytes(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """The contents of a regular file.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than ``limit`` bytes.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size <= limit and len(data := file.read(limit + 1)) <= limit:
            return data
    raise OSError(errno.EFBIG, f"it has more than {limit} bytes, which is the limit", str(path))


def read_text(path: str | Path, limit: int = MAX_BYTES) -> str:
    """The contents of a regular file in UTF-8, without a byte order mark; line ends stay as they are.

    Raises:
        OSError: as :func:`read_bytes`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, limit).decode("utf-8-sig")


def append_lines(path: str | Path, lines: Iterable[str], *, wait: float = 30.0) -> None:
    """Add lines at the end of a file to which other processes append too; what is there stays byte for byte.

    A last line that a crash has cut short is ended first. The lines are added as a whole or not at all. What is no
    UTF-8 in a file name is written as ``\\udcff``, which JSON reads back.

    Args:
        path: the file; it is made if there is none.
        lines: texts without line ends.
        wait: seconds to wait for other processes.

    Raises:
        VitrailError: the file cannot be written, is no regular file, or is locked for longer than ``wait``.
    """
    path = Path(path)
    rest = memoryview("".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            check_regular(path)
        with open(path, "a+b", buffering=0) as file:
            _lock(file, wait)
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(size)
                raise
    except OSError as error:
        raise VitrailError(f"cannot write {path}: {error.strerror}; free space or choose another folder") from error


def _lock(file: io.FileIO, wait: float) -> None:
    """Take the system's lock on an open file, which ends when the file is closed or the process ends."""
    end = time.monotonic() + wait
    try:
        while not lock_descriptor(file.fileno(), blocking=False):
            if time.monotonic() > end:
                raise OSError(errno.EAGAIN, f"another process has locked it for {wait:g} s")
            time.sleep(0.01)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise  # else a file system without locks; it still adds each write at the end


def read_json(path: str | Path, *, error: type[VitrailError] = VitrailError) -> Any:
    """The contents of a JSON file, which :func:`~vitrail.core.parse.parse_json` limits.

    Args:
        path: the file.
        error: class of the error.

    Raises:
        VitrailError: the file is missing, is not JSON, or goes beyond a limit; it is an ``error``.
    """
    try:
        return parse_json(read_text(path))
    except OSError as failure:
        raise error(f"cannot read {path}: {failure.strerror}") from failure
    except LimitError as failure:
        raise error(f"{path} is refused: {failure}") from failure
    except ValueError as failure:
        raise error(f"{path} is not JSON: {failure}") from failure
    except MemoryError as failure:
        raise error(f"{path} does not fit into memory; split it, or free memory") from failure


def read_yaml(path: str | Path, *, title: str = "", remedy: str = "", error: type[VitrailError] = VitrailError) -> Any:
    """The contents of a YAML file, which :func:`~vitrail.core.parse.parse_yaml` limits.

    Args:
        path: the file.
        title: what the file is in messages, e.g. "configuration".
        remedy: end of the message on a file that is not YAML.
        error: class of the error.

    Raises:
        VitrailError: the file is missing, is not YAML, or goes beyond a limit; it is an ``error``.
    """
    name, end = f"{title} {path}".lstrip(), f"; {remedy}" if remedy else ""
    try:
        return parse_yaml(read_text(path, MAX_YAML_BYTES))
    except OSError as failure:
        raise error(f"cannot read {name}: {failure.strerror}") from failure
    except LimitError as failure:
        raise error(f"{name} is refused: {failure}") from failure
    except (yaml.YAMLError, UnicodeDecodeError) as failure:
        raise error(f"{name} is not YAML: {' '.join(str(failure).split())}{end}") from failure


def file_hash(path: str | Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256, which identify the file of a result."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; what is no UTF-8 in a file name is written as ``\\udcff``,
    which JSON reads back.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


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
