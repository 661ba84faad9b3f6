"""ONNX Runtime on the CPU, float and QDQ files alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from vitrail.runtimes.session import Images, Session, Shape

FREE_DIMENSIONS = {"batch": 0, "height": 2, "width": 3}
"""Name of a free dimension in our files -> axis of the images; dimensions of other names stay free."""


def load(source: Path, *, threads: int, shape: Shape | None) -> Session:
    """An ONNX file in a session of its own, for images of one shape if it is given."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Idle workers that spin would take the cores from the candidate that is measured next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if shape:
        for name, axis in FREE_DIMENSIONS.items():
            options.add_free_dimension_override_by_name(name, shape[axis])
    session = ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]

    def run(images: Images) -> NDArray[Any]:
        answer: NDArray[Any] = session.run(None, {name: images})[0]
        return answer

    def outputs(images: Images) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(None, {name: images}), strict=True))

    return Session(
        runtime="onnxruntime",
        version=ort.__version__,
        threads=threads,
        run=run,
        outputs=outputs,
        options={
            "provider": "CPUExecutionProvider",
            "graph_optimization_level": "all",
            "allow_spinning": "0",
            "shape": "fixed" if shape else "free",
        },
    )
