"""ExecuTorch with XNNPACK on this machine's processor, from a ``.pte`` file."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import torch
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch.runtime import Runtime, Verification
from numpy.typing import NDArray

from vitrail.bench.session import Images, Session, package_version
from vitrail.core.errors import BenchError

_live: weakref.WeakSet[_Loaded] = weakref.WeakSet()
"""What is loaded now. The pool of threads is the process's; methods point into it, and die with it when it is reset."""


def load(source: Path, *, threads: int) -> Session:
    """A program for one image at a time.

    Raises:
        BenchError: the file is not a program that this version can run, or one is loaded with other threads.
    """
    if any(loaded.threads != threads for loaded in _live):
        gc.collect()  # what nobody can reach any more does not count
    if others := {loaded.threads for loaded in _live} - {threads}:
        raise BenchError(
            f"threads={threads}: ExecuTorch has one pool of threads a process, and {min(others)} are in use; "
            "measure one number of threads at a time"
        )
    if not _live:
        _unsafe_reset_threadpool(threads)
    try:
        loaded = _Loaded(source.read_bytes(), threads)
    except RuntimeError as error:
        raise BenchError(f"ExecuTorch cannot load {source.name}: {error}; export it again") from error
    _live.add(loaded)

    def run(images: Images) -> NDArray[Any]:
        if len(images) != 1:
            raise BenchError(f"{source.name} takes one image at a time, not {len(images)}; set batch_size to 1")
        answer: NDArray[Any] = loaded.method.execute([torch.from_numpy(images)])[0].numpy().copy()
        return answer

    return Session(
        runtime="executorch",
        version=package_version("executorch"),
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
