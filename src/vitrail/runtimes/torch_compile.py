"""PyTorch through ``torch.compile`` (TorchInductor); the first call compiles and needs a C++ compiler."""

from __future__ import annotations

import logging

import torch
from torch import nn

from vitrail.runtimes.session import Session
from vitrail.runtimes.torch_eager import numpy_call


def load(source: nn.Module, *, threads: int) -> Session:
    """As :func:`.torch_eager.load`; specialised to the shape of the first call."""
    # It warns of a missing GPU at every compilation, also of code for the processor.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    torch.set_num_threads(threads)  # Inductor bakes the number of threads into the code that it writes
    compiled = torch.compile(source.eval(), dynamic=False)
    return Session(
        runtime="torch-compile",
        version=torch.__version__,
        threads=threads,
        run=numpy_call(compiled, threads),
        options={"dynamic": "False", "mode": "default"},
    )
