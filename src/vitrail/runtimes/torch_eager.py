"""PyTorch as it trains: no compiler, the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from vitrail.core.errors import BenchError
from vitrail.core.run import Run
from vitrail.runtimes.session import Images, Session
from vitrail.tasks import load_task


def load(source: Path | nn.Module, *, threads: int) -> Session:
    """A run folder's task, or any module, in eval mode.

    Raises:
        BenchError: the source is a file; the PyTorch runtimes take a run folder.
    """
    model = read_model(source)
    return Session(runtime="torch", version=torch.__version__, threads=threads, run=numpy_call(model, threads))


def read_model(source: Path | nn.Module) -> nn.Module:
    """The module behind ``source``, in eval mode."""
    if isinstance(source, nn.Module):
        return source.eval()
    if not source.is_dir():
        raise BenchError(f"{source} is not a run folder; PyTorch runs need the folder, not a file of it")
    return load_task(Run.open(source)).eval()


def numpy_call(model: Callable[..., Any], threads: int) -> Callable[[Images], NDArray[Any]]:
    """Wrap a module, compiled or not, as a function on arrays that holds PyTorch to ``threads`` threads."""

    def run(images: Images) -> NDArray[Any]:
        # The setting is the process's, and another session may have changed it since.
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        with torch.inference_mode():
            answer: NDArray[Any] = model(torch.from_numpy(images)).numpy()
        return answer

    return run
