"""LiteRT (once TensorFlow Lite) on this machine's processor, through XNNPACK, from a ``.tflite`` file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from vitrail.runtimes.session import Images, Session


def load(source: Path, *, threads: int) -> Session:
    """A ``.tflite`` model for one image at a time."""
    interpreter = Interpreter(str(source), num_threads=threads)
    interpreter.allocate_tensors()
    image, answer = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(images: Images) -> NDArray[Any]:
        interpreter.set_tensor(image, images)
        interpreter.invoke()
        copied: NDArray[Any] = interpreter.get_tensor(answer)  # a copy: get_tensor says so
        return copied

    return Session(
        runtime="litert",
        version=version("ai-edge-litert"),
        threads=threads,
        run=run,
        options={"delegate": "XNNPACK"},
    )
