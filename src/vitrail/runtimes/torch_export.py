"""PyTorch's captured graphs, run as they are: the check of files that other compilers start from."""

from __future__ import annotations

from pathlib import Path

import torch

from vitrail.runtimes.session import Session
from vitrail.runtimes.torch_eager import numpy_call


def load(source: Path, *, threads: int) -> Session:
    """A ``.pt2`` program, for any batch size."""
    call = numpy_call(torch.export.load(source).module(), threads)
    return Session(runtime="torch-export", version=torch.__version__, threads=threads, run=call)
