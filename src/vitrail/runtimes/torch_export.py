"""PyTorch's captured graphs, run as they are: the check of files that other compilers start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.runtimes.session import Images, Session
from vitrail.runtimes.torch_eager import numpy_call


def load(source: Path, *, threads: int) -> Session:
    """A ``.pt2`` program, for any batch size; it returns a tensor, or a dictionary of several."""
    module = torch.export.load(source).module()

    def first(images: Tensor) -> Tensor:
        found: Tensor | dict[str, Tensor] = module(images)
        return next(iter(found.values())) if isinstance(found, dict) else found

    def outputs(images: Images) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            return {name: value.numpy() for name, value in module(torch.from_numpy(images)).items()}

    return Session(
        runtime="torch-export",
        version=torch.__version__,
        threads=threads,
        run=numpy_call(first, threads),
        outputs=outputs,
    )
