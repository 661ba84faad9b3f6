"""One small interface to every runtime: numpy images in, numpy answers out, a fixed number of threads.

Runtimes are imported on first use: a process that measures ONNX Runtime must not carry PyTorch in its memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import BenchError, VitrailError
from vitrail.core.files import check_regular
from vitrail.runtimes.table import RUNTIMES, export_command, find_runtime

if TYPE_CHECKING:
    from torch import Tensor

Images = NDArray[np.float32]
"""Normalised images (b, c, h, w)."""

Shape = tuple[int, int, int, int]
"""(b, c, h, w)."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A loaded model; calling it runs one batch.

    Attributes:
        runtime: a name in :data:`~vitrail.runtimes.table.RUNTIMES`.
        version: the version of the runtime's library.
        threads: the number of threads that a call may use.
        options: settings beyond the defaults, since they change speed or accuracy.
        run: the model as a function from float32 images (b, c, h, w) to its output (b, ...); the first one, if a file
            has several.
        outputs: the same function to all outputs by name, where the runtime tells names; None elsewhere.
    """

    runtime: str
    version: str
    threads: int
    run: Callable[[Images], NDArray[Any]]
    options: Mapping[str, str] = field(default_factory=dict)
    outputs: Callable[[Images], Mapping[str, NDArray[Any]]] | None = None

    @property
    def batch_size(self) -> int | None:
        """The only number of images that a call takes; None if it takes any."""
        return RUNTIMES[self.runtime].batch_size

    def __call__(self, images: Images) -> NDArray[Any]:
        """The output for one batch.

        Raises:
            BenchError: the model takes one image at a time, and there are more.
        """
        if self.batch_size not in (None, len(images)):
            title = RUNTIMES[self.runtime].title
            raise BenchError(f"{title} takes one image at a time, not {len(images)}; set batch_size to 1")
        return self.run(images)


@dataclass(frozen=True)
class ModelFolder:
    """A folder that a module is made from, for runtimes of PyTorch; a fresh process can open it too.

    Attributes:
        path: the folder.
        opener: ``"module:function"``, a function from the path to an ``nn.Module``.
    """

    path: Path
    opener: str

    def open(self) -> Any:
        """The module."""
        module, _, function = self.opener.partition(":")
        return getattr(importlib.import_module(module), function)(self.path)


def predictor(session: Session) -> Callable[[Tensor], Tensor]:
    """A session as a function from normalised images (b, c, h, w) to outputs (b, ...), whatever batches it takes."""
    import torch

    def predict(images: Tensor) -> Tensor:
        parts = images.split(session.batch_size or len(images))
        return torch.cat([torch.from_numpy(session(part.numpy())) for part in parts])

    return predict


def import_runtime(runtime: str) -> Any:
    """The module of a runtime, with its library; importing is kept apart from loading so that it can be timed apart.

    Raises:
        UnknownNameError: no such runtime.
        BenchError: its library is not installed or does not load here.
    """
    known = find_runtime(runtime)
    try:
        return importlib.import_module(f"vitrail.runtimes.{known.module}")
    except Exception as error:  # a library that does not fit this machine raises all kinds
        install = f"install it with: pip install 'vitrail[{known.extra}]'" if known.extra else "install it"
        raise BenchError(f"runtime {runtime} cannot be used here: {error}; {install}, or leave it out") from error


def open_session(source: Any, runtime: str, threads: int = 1, *, shape: Shape | None = None) -> Session:
    """Load a model into a runtime.

    Args:
        source: a file of one of the runtime's formats; an ``nn.Module`` or a :class:`ModelFolder` for runtimes without
            a format.
        runtime: a name in :data:`~vitrail.runtimes.table.RUNTIMES`.
        threads: the number of threads that a call may use.
        shape: the only shape (b, c, h, w) that images will have, where it is known: an application would tell it the
            runtime.

    Raises:
        UnknownNameError: no such runtime.
        BenchError: the runtime or the file cannot be used, with the reason.
    """
    if threads < 1:
        raise BenchError(f"threads={threads} is below 1; give the number of cores to use")
    known, module = find_runtime(runtime), import_runtime(runtime)
    if isinstance(source, ModelFolder):
        source = source.open()
    if isinstance(source, str | Path):
        source = Path(source)
        if known.format is None:
            raise BenchError(f"{source} is a path; runtime {runtime} takes an nn.Module, or a ModelFolder")
        if not source.exists():
            command = export_command(source.parent, known.format)
            raise BenchError(f"{source} does not exist; make it with: {command}")
        try:
            if not source.is_dir():
                check_regular(source)
        except OSError as error:
            raise BenchError(f"{source} cannot be loaded: {error.strerror}") from error
    more = {"shape": shape} if known.takes_shape else {}
    try:
        session: Session = module.load(source, threads=threads, **more)
    except VitrailError:
        raise
    except Exception as error:  # the runtimes' exception classes have no common base
        if known.format is None:
            raise  # an error of a module is not one of a file
        raise BenchError(f"{known.title} cannot load {source.name}: {error}; export it again here") from error
    return session
