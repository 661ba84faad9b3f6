"""ExecuTorch with XNNPACK on this machine's processor, from a ``.pte`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count, _unsafe_reset_threadpool
from executorch.runtime import Runtime, Verification
from numpy.typing import NDArray

from vitrail.bench.session import Images, Session, package_version
from vitrail.core.errors import BenchError


def load(source: Path, *, threads: int) -> Session:
    """A program for one image at a time.

    Raises:
        BenchError: the file is not a program that this version can run.
    """
    _unsafe_reset_threadpool(threads)
    data = source.read_bytes()
    try:
        program = Runtime.get().load_program(data, verification=Verification.InternalConsistency)
        method = program.load_method("forward")
    except RuntimeError as error:
        raise BenchError(f"ExecuTorch cannot load {source.name}: {error}; export it again") from error

    # The bytes and the program are named here because the method points into them without keeping them alive.
    def run(images: Images, _keep: Any = (data, program)) -> NDArray[Any]:
        if len(images) != 1:
            raise BenchError(f"{source.name} takes one image at a time, not {len(images)}; set batch_size to 1")
        # The pool is the process's, and another session may have changed its size since.
        if _threadpool_get_thread_count() != threads:
            _unsafe_reset_threadpool(threads)
        answer: NDArray[Any] = method.execute([torch.from_numpy(images)])[0].numpy().copy()
        return answer

    return Session(
        runtime="executorch",
        version=package_version("executorch"),
        threads=threads,
        run=run,
        options={"backend": "XNNPACK"},
    )
