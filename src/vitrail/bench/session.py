"""One small interface to every runtime: numpy images in, numpy answers out, a fixed number of threads.

Runtimes are imported on first use: a process that measures ONNX Runtime must not carry PyTorch in its memory.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import BenchError, UnknownNameError

Images = NDArray[np.float32]
"""Normalised images (b, c, h, w)."""

Shape = tuple[int, int, int, int]
"""(b, c, h, w)."""

RuntimeName = Literal["torch", "torch-compile", "onnxruntime", "openvino", "executorch", "litert", "aoti"]

RUNTIMES: dict[str, str] = {
    "torch": "vitrail.bench.runtimes.torch_eager",
    "torch-compile": "vitrail.bench.runtimes.torch_compile",
    "onnxruntime": "vitrail.bench.runtimes.onnx_runtime",
    "openvino": "vitrail.bench.runtimes.openvino_cpu",
    "executorch": "vitrail.bench.runtimes.executorch_cpu",
    "litert": "vitrail.bench.runtimes.litert_cpu",
    "aoti": "vitrail.bench.runtimes.aot_inductor",
}
"""Runtime -> the module whose ``load(source, *, threads)`` gives a :class:`Session`."""

TOLD_SHAPE = ("onnxruntime", "openvino")
"""Runtimes that are faster when they know the shape of their images beforehand; their ``load`` takes a ``shape``.

``torch-compile`` takes it from the first call; the other files have it, but for AOTInductor's, whose batch stays free.
"""

USUAL_RUNTIMES: tuple[RuntimeName, ...] = ("torch", "torch-compile", "onnxruntime", "openvino")
"""Those that are measured unasked: they need no extra, nor files that ``vitrail export`` writes only when asked."""

FILE_FORMATS = {
    "onnxruntime": "onnx",
    "openvino": "onnx",
    "executorch": "executorch",
    "litert": "litert",
    "aoti": "aoti",
}
"""Runtime -> format of the files that it takes (``vitrail.core.run.SUFFIXES``); the others take a run's folder."""

EXTRAS = ("executorch", "litert")
"""Runtimes that come with an optional extra of the same name."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A loaded model; calling it runs one batch.

    Attributes:
        runtime: a name in :data:`RUNTIMES`.
        version: of the runtime's library.
        threads: how many threads one call may use.
        options: what was set beyond the defaults, because it changes speed or accuracy.
        run: float32 images (b, c, h, w) to the model's answer.
    """

    runtime: str
    version: str
    threads: int
    run: Callable[[Images], NDArray[Any]]
    options: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, images: Images) -> NDArray[Any]:
        return self.run(images)


def package_version(package: str) -> str:
    """Of an installed distribution, for libraries that do not say theirs."""
    return importlib.metadata.version(package)


def import_runtime(runtime: str) -> Any:
    """The module of a runtime, with its library; importing is kept apart from loading so that it can be timed apart.

    Raises:
        UnknownNameError: no such runtime.
        BenchError: its library is not installed or does not load here.
    """
    if runtime not in RUNTIMES:
        close = difflib.get_close_matches(runtime, RUNTIMES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(RUNTIMES)}"
        raise UnknownNameError(f"unknown runtime '{runtime}'; {hint}")
    try:
        return importlib.import_module(RUNTIMES[runtime])
    except ImportError as error:
        install = f"install it with: pip install 'vitrail[{runtime}]'" if runtime in EXTRAS else "install it"
        raise BenchError(f"runtime {runtime} cannot be used here: {error}; {install}, or leave it out") from error


def open_session(source: str | Path | Any, runtime: str, threads: int = 1, *, shape: Shape | None = None) -> Session:
    """Load a model into a runtime.

    Args:
        source: a file of the runtime's format in :data:`FILE_FORMATS` (for ``openvino`` its own ``.xml`` too); a run
            folder or an ``nn.Module`` for ``torch`` and ``torch-compile``.
        runtime: a name in :data:`RUNTIMES`.
        threads: how many threads one call may use.
        shape: the only one that images will have, where it is known: an application would tell it the runtime.

    Raises:
        UnknownNameError: no such runtime.
        BenchError: the runtime or the file cannot be used, with the reason.
    """
    if threads < 1:
        raise BenchError(f"threads={threads} is below 1; give the number of cores to use")
    module = import_runtime(runtime)
    if isinstance(source, str | Path):
        source = Path(source)
        if not source.exists():
            format = FILE_FORMATS.get(runtime, "onnx")
            options = "" if format == "onnx" else f" --format {format}"
            raise BenchError(f"{source} does not exist; make it with: vitrail export {source.parent}{options}")
    told = {"shape": shape} if runtime in TOLD_SHAPE else {}
    session: Session = module.load(source, threads=threads, **told)
    return session
