"""PyTorch's ahead-of-time compiled packages, which C++ programs run without Python."""

from __future__ import annotations

from pathlib import Path

import torch
from torch._inductor import aoti_load_package

from vitrail.runtimes.session import Session
from vitrail.runtimes.torch_eager import numpy_call


def load(source: Path, *, threads: int) -> Session:
    """A ``.pt2`` package, made on this kind of processor, for any batch size."""
    call = numpy_call(aoti_load_package(str(source)), threads)
    return Session(runtime="aoti", version=torch.__version__, threads=threads, run=call)
