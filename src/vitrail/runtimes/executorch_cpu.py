"""ExecuTorch with XNNPACK on this machine's processor, from a ``.pte`` file."""

from __future__ import annotations

import gc
import weakref
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch.runtime import Runtime, Verification
from numpy.typing import NDArray

from vitrail.core.errors import BenchError
from vitrail.core.files import read_bytes
from vitrail.runtimes.session import Images, Session

_live: weakref.WeakSet[_Loaded] = weakref.WeakSet()
"""Programs that are loaded. A process has one pool of threads; a reset of it invalidates every loaded method."""


def load(source: Path, *, threads: int) -> Session:
    """A ``.pte`` program for one image at a time.

    Raises:
        BenchError: another program is loaded with another number of threads.
    """
    if any(loaded.threads != threads for loaded in _live):
        gc.collect()  # programs that are no longer referenced do not count
    if others := {loaded.threads for loaded in _live} - {threads}:
        raise BenchError(
            f"threads={threads}: ExecuTorch has one pool of threads a process, and {min(others)} are in use; "
            "measure one number of threads at a time"
        )
    if not _live:
        _unsafe_reset_threadpool(threads)
    loaded = _Loaded(read_bytes(source), threads)
    _live.add(loaded)

    def run(images: Images) -> NDArray[Any]:
        # The method owns its output and overwrites it on the next call, hence the copy.
        answer: NDArray[Any] = loaded.method.execute([torch.from_numpy(images)])[0].numpy().copy()
        return answer

    return Session(
        runtime="executorch",
        version=version("executorch"),
        threads=threads,
        run=run,
        options={"backend": "XNNPACK"},
    )


class _Loaded:
    """A method, with the bytes and the program that it points into without keeping them alive."""

    def __init__(self, data: bytes, threads: int) -> None:
        self.threads, self.data = threads, data
        self.program = Runtime.get().load_program(data, verification=Verification.InternalConsistency)
        self.method = self.program.load_method("forward")
