"""One writer at a time, among all processes that share a disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLock, Timeout

from vitrail.core.errors import LockedError, VitrailError
from vitrail.core.files import open_regular

LOG = logging.getLogger(__name__)

PATIENCE = 0.2
"""Seconds in which the lock of a dead process is recognised and taken over."""


@contextmanager
def locked(path: Path, subject: str, *, wait: float = PATIENCE) -> Iterator[None]:
    """Hold a lock while the block runs; the same thread may take it again inside.

    The lock is a file with the process, its host and the start of the process. It is deleted at the end. The file of a
    process that was killed stays; the next process on that host takes it over, and a warning says so. Whether a process
    of another host still runs cannot be known, so its lock holds until somebody deletes the file.

    Args:
        path: the lock file; its folder must exist.
        subject: name of what is locked, for messages.
        wait: seconds to wait for another process.

    Raises:
        LockedError: another process or thread has the lock.
        VitrailError: the folder is not writable.
    """
    lock = SoftFileLock(path.resolve(), timeout=wait, is_singleton=True)
    before = None if lock.is_locked else _holder(path)
    try:
        lock.acquire()
    except Timeout:
        owner = _holder(path) or "another process"
        raise LockedError(
            f"{subject} is in use by {owner}; wait for its end, or delete {path} if it has ended already"
        ) from None
    except OSError as error:
        raise VitrailError(f"cannot write {path}: {error.strerror}; free space or choose another folder") from error
    if before is not None:
        LOG.warning("%s was in use by %s, which was ended before it was done; its lock is taken over", subject, before)
    try:
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str | None:
    """The process in a lock file, in words; None without a readable one."""
    try:
        with open_regular(path) as file:
            process, host, *_ = file.read(1024).decode().splitlines()
    except (OSError, ValueError):
        return None
    return f"process {process} on {host.partition('?')[0]}"
