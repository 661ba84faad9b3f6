"""OpenVINO on the CPU, from the same ONNX files.

On processors with bfloat16 units OpenVINO would silently compute in bfloat16 (errors of 2e-3 to 2e-2), so the precision
is pinned to float32, and every result records that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino as ov
from numpy.typing import NDArray

from vitrail.bench.session import Images, Session, Shape
from vitrail.core.errors import BenchError
from vitrail.core.openvino_core import openvino_core

OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}


def load(source: Path, *, threads: int, shape: Shape | None) -> Session:
    """An ONNX file, compiled for the CPU, for images of one shape if it is given.

    Raises:
        BenchError: the file is not an ONNX model that this version can run.
    """
    core = openvino_core()
    try:
        model = core.read_model(str(source))
        if shape:
            model.reshape(list(shape))
        compiled = core.compile_model(model, "CPU", OPTIONS | {"INFERENCE_NUM_THREADS": str(threads)})
    except RuntimeError as error:
        raise BenchError(f"OpenVINO cannot load {source.name}: {error}; export it again") from error
    request = compiled.create_infer_request()
    output = compiled.output(0)

    def run(images: Images) -> NDArray[Any]:
        # The request owns its output buffer and overwrites it on the next call, hence the copy.
        answer: NDArray[Any] = request.infer([images], share_inputs=True)[output].copy()
        return answer

    return Session(
        runtime="openvino",
        version=ov.__version__.split("-")[0],
        threads=threads,
        run=run,
        options=OPTIONS | {"shape": "fixed" if shape else "free"},
    )
