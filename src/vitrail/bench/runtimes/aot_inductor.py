"""PyTorch's ahead-of-time compiled packages, which C++ programs run without Python."""

from __future__ import annotations

from pathlib import Path

import torch
from torch._inductor import aoti_load_package

from vitrail.bench.runtimes.torch_eager import numpy_call
from vitrail.bench.session import Session
from vitrail.core.errors import BenchError


def load(source: Path, *, threads: int) -> Session:
    """A ``.pt2`` package, made on this kind of processor.

    Raises:
        BenchError: the file is no package, or for another processor.
    """
    try:
        call = aoti_load_package(str(source))
    except Exception as error:  # a zip reader, a dynamic linker and PyTorch may fail, each with classes of its own
        raise BenchError(f"AOTInductor cannot load {source.name}: {error}; export it again on this machine") from error
    return Session(runtime="aoti", version=torch.__version__, threads=threads, run=numpy_call(call, threads))
