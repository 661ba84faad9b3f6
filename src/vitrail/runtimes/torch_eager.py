"""PyTorch as it trains: no compiler, the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from vitrail.runtimes.session import Images, Session


def load(source: nn.Module, *, threads: int) -> Session:
    """A module in evaluation mode."""
    call = numpy_call(source.eval(), threads)
    return Session(runtime="torch", version=torch.__version__, threads=threads, run=call)


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
