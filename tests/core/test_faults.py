"""Messages as libraries write them, and errors that they raise here."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable

import numpy as np
import pytest
import torch

from vitrail.core.faults import find_fault

WORKER = "DataLoader worker (pid 71) is killed by signal: "
IN_WORKER = "Caught {} in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File ...\n{}"
MACHINE = "memory of this machine"
LOADER = "a process that loads images was ended"
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "x")


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (RuntimeError(ALLOCATOR), MACHINE),
        (RuntimeError(IN_WORKER.format("RuntimeError", f"RuntimeError: {ALLOCATOR}")), MACHINE),
        (MemoryError(), MACHINE),
        (MemoryError(IN_WORKER.format("MemoryError", "MemoryError")), MACHINE),
        (os_error(errno.ENOMEM), MACHINE),
        (RuntimeError("could not create a primitive"), MACHINE),
        (RuntimeError("std::bad_alloc"), MACHINE),
        (RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 9"), MACHINE),
        (RuntimeError("unable to mmap 8 bytes from file <m.pt>: Cannot allocate memory (12)"), MACHINE),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "GPU's memory"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."), "GPU's memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "GPU's memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), "GPU's memory"),
        (RuntimeError(f"{WORKER}Killed. "), LOADER),
        (RuntimeError("DataLoader worker (pid(s) 71, 72) exited unexpectedly"), LOADER),
        (RuntimeError(f"{WORKER}Bus error. ... dataloader's workers are out of shared memory."), "/dev/shm"),
        (RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"), "/dev/shm"),
        (RuntimeError("unable to open shared memory object </torch_1_2>: Too many open files (24)"), "too many files"),
        (RuntimeError("received 0 items of ancdata"), "too many files"),
        (os_error(errno.EMFILE), "too many files"),
        (OSError(IN_WORKER.format("OSError", "OSError: [Errno 24] Too many open files: 'x'")), "too many files"),
        (RuntimeError("[../gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"), "another process"),
        (torch.distributed.DistBackendError("NCCL error in: ... ncclRemoteError: A call failed"), "another process"),
        (torch.distributed.DistNetworkError("failed to recv, got 0 bytes"), "another process"),
        (os_error(errno.ENOSPC), "disk is full"),
        (os_error(errno.EDQUOT), "disk is full"),
        (sqlite3.OperationalError("database or disk is full"), "disk is full"),
        (os_error(errno.EROFS), "read-only"),
        (RuntimeError("can't start new thread"), "no more threads"),
        (os_error(errno.EAGAIN), "no more threads"),
    ],
)  # fmt: skip
def test_known_messages(error: Exception, what: str) -> None:
    fault = find_fault(error)
    assert fault is not None
    assert what in fault.what
    wrapped = RuntimeError("something else")
    wrapped.__cause__ = error
    assert find_fault(wrapped) is fault


@pytest.mark.parametrize("raises", [lambda: torch.empty(2**60), lambda: bytearray(2**62), lambda: np.zeros(2**60)])
def test_memory_that_does_not_suffice(raises: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, MemoryError, ValueError)) as caught:
        raises()
    fault = find_fault(caught.value)
    assert fault is not None
    assert fault.what == "the memory of this machine is too small"


@pytest.mark.parametrize(
    "error",
    [
        TypeError("no such thing"),
        KeyError("memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
        RuntimeError("CUDA error: device-side assert triggered"),
        AssertionError("out of bounds"),
        PermissionError(errno.EACCES, "Permission denied", "x"),
    ],
)
def test_bugs_stay_bugs(error: Exception) -> None:
    assert find_fault(error) is None
