"""The time of one image on this machine, of a model that nobody has trained yet: random weights change no time."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from vitrail.bench import BenchConfig
from vitrail.bench.protocol import is_contended, measure
from vitrail.core.errors import BenchError, ExportError, QuantizationError
from vitrail.core.types import ImageSize
from vitrail.export.onnx_file import onnx_bytes
from vitrail.export.source import Source
from vitrail.runtimes import RUNTIMES, Session, open_session
from vitrail.tasks import Task

TIMING = BenchConfig(
    min_runs=15, min_seconds=0.5, budget_seconds=10.0, warmup_runs=10, warmup_seconds=1.0, memory=False
)
"""A latency for a choice of models; ``vitrail bench`` measures one for a decision."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """The time of one image with one thread.

    Attributes:
        milliseconds: median; processor time where other programs disturbed the measurement.
        contended: whether they did.
        runtime: name of the runtime, for people.
    """

    milliseconds: float
    contended: bool
    runtime: str


def time_model(task: Task, image_size: ImageSize) -> Timed:
    """Measure one image as an exported file in ONNX Runtime; in PyTorch where the file or the runtime cannot be had.

    Args:
        task: model in evaluation mode.
        image_size: (height, width) in pixels.

    Raises:
        BenchError: the model does not run.
    """
    images = torch.randn(2, 3, *image_size, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as folder:
            session = _open(task, images, Path(folder))
            image = images[:1].numpy()
            found = measure({"": lambda: session(image)}, TIMING)[""]
    finally:
        torch.set_num_threads(threads)
    if not found.wall:
        raise BenchError(f"{session.runtime} does not run the model: {found.failure}")
    wall, cpu = statistics.median(found.wall), statistics.median(found.cpu)
    contended = is_contended(wall, cpu, 1)
    return Timed(
        milliseconds=1e3 * (cpu if contended else wall), contended=contended, runtime=RUNTIMES[session.runtime].title
    )


def _open(task: Task, images: torch.Tensor, folder: Path) -> Session:
    file = folder / "model.onnx"
    try:
        file.write_bytes(onnx_bytes(Source(model=task, images=images)))
        return open_session(file, "onnxruntime", 1)
    except (BenchError, ExportError, QuantizationError):
        return open_session(task, "torch", 1)
