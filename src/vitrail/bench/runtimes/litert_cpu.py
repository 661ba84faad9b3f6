"""LiteRT (once TensorFlow Lite) on this machine's processor, through XNNPACK, from a ``.tflite`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from vitrail.bench.session import Images, Session, package_version
from vitrail.core.errors import BenchError


def load(source: Path, *, threads: int) -> Session:
    """A model for one image at a time.

    Raises:
        BenchError: the file is not a model that this version can run.
    """
    try:
        interpreter = Interpreter(str(source), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise BenchError(f"LiteRT cannot load {source.name}: {error}; export it again") from error
    image, answer = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(images: Images) -> NDArray[Any]:
        if len(images) != 1:
            raise BenchError(f"{source.name} takes one image at a time, not {len(images)}; set batch_size to 1")
        interpreter.set_tensor(image, images)
        interpreter.invoke()
        copied: NDArray[Any] = interpreter.get_tensor(answer)  # a copy: get_tensor says so
        return copied

    return Session(
        runtime="litert",
        version=package_version("ai-edge-litert"),
        threads=threads,
        run=run,
        options={"delegate": "XNNPACK"},
    )
