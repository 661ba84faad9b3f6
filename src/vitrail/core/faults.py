"""Faults of the machine, which libraries raise as errors of many classes: memory, disk, processes, open files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault of the machine, in words.

    Attributes:
        what: the fault.
        remedy: what helps without other settings.
        settings: fields of configurations whose lower values help, too.
    """

    what: str
    remedy: str
    settings: tuple[str, ...] = ()

    def advice(self, lower: Sequence[str]) -> str:
        """The remedy, and the settings that may be lowered instead."""
        return f"{self.remedy}, or lower {' or '.join(lower)}" if lower else self.remedy


_SIGNS = {
    r"\[Errno (23|24)\]|Too many open files|ancdata": Fault(
        what="too many files are open", remedy="raise the limit (ulimit -n 4096)", settings=("num_workers",)
    ),
    r"out of shared memory|Bus error|</torch_\d+": Fault(
        what="shared memory (/dev/shm) is too small for the processes that load images",
        remedy="enlarge it (docker run --shm-size 2g)",
        settings=("num_workers",),
    ),
    r"(?i)\b(CUDA|HIP|MPS|XPU)\b.*out of memory|CU\w+_STATUS_ALLOC_FAILED": Fault(
        what="the GPU's memory is too small",
        remedy="end other programs that use it",
        settings=("batch_size", "image_size"),
    ),
    r"MemoryError|DefaultCPUAllocator|\[Errno 12\]|(?i:not enough memory|cannot allocate|out of memory|bad.?alloc)"
    r"|Failed to allocate memory|could not create a (primitive|memory object)(?! desc)"
    r"|Storage size calculation overflowed|array is too big": Fault(
        what="the memory of this machine is too small",
        remedy="end other programs",
        settings=("num_workers", "batch_size", "image_size"),
    ),
    r"DataLoader worker .*(killed by signal|exited unexpectedly)": Fault(
        what="a process that loads images was ended by the system, mostly for lack of memory",
        remedy="end other programs",
        settings=("num_workers", "batch_size", "image_size"),
    ),
    r"(?i)\bgloo\b|\bnccl|TCPStore|c10d::|\bDist(Backend|Network|Store)Error": Fault(
        what="another process of this training ended or cannot be reached", remedy="read its own message"
    ),
    r"\[Errno (28|122)\]|No space left on device|database or disk is full|PytorchStreamWriter failed": Fault(
        what="the disk is full", remedy="free some space or choose another folder"
    ),
    r"\[Errno 30\]|Read-only file system": Fault(what="the file system is read-only", remedy="choose another folder"),
    r"can't start new thread|\[Errno 11\]|Resource temporarily unavailable": Fault(
        what="the system starts no more threads or processes",
        remedy="end other programs, or raise the limit (ulimit -u)",
        settings=("num_workers",),
    ),
}
"""Pattern of an error's class and message -> fault; the first one counts."""


def find_fault(error: BaseException) -> Fault | None:
    """The fault of the machine behind an error or one of its causes; None if it is something else."""
    text = "\n".join(f"{type(link).__name__}: {link}" for link in _chain(error))
    return next((fault for pattern, fault in _SIGNS.items() if re.search(pattern, text)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
