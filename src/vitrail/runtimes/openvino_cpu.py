"""OpenVINO on the CPU, from ONNX files and from its own.

On processors with bfloat16 units OpenVINO would silently compute in bfloat16 (errors of 2e-3 to 2e-2), so the precision
is pinned to float32, and every result records that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino as ov
from numpy.typing import NDArray

from vitrail.core.files import check_regular
from vitrail.runtimes.openvino_core import openvino_core
from vitrail.runtimes.session import Images, Session, Shape

OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}


def load(source: Path, *, threads: int, shape: Shape | None) -> Session:
    """An ``.onnx`` or ``.xml`` file, compiled for the CPU, for images of one shape if it is given."""
    core = openvino_core()
    if source.suffix == ".xml":
        check_regular(source.with_suffix(".bin"))
    model = core.read_model(str(source))
    if shape:
        model.reshape(list(shape))
    compiled = core.compile_model(model, "CPU", OPTIONS | {"INFERENCE_NUM_THREADS": str(threads)})
    request = compiled.create_infer_request()
    output = compiled.output(0)

    def run(images: Images) -> NDArray[Any]:
        # The request owns its output buffer and overwrites it on the next call, hence the copy.
        answer: NDArray[Any] = request.infer([images], share_inputs=True)[output].copy()
        return answer

    def outputs(images: Images) -> dict[str, NDArray[Any]]:
        found = request.infer([images], share_inputs=True)
        return {one.get_any_name(): found[one].copy() for one in compiled.outputs}

    return Session(
        runtime="openvino",
        version=ov.__version__.split("-")[0],
        threads=threads,
        run=run,
        outputs=outputs,
        options=OPTIONS | {"shape": "fixed" if shape else "free"},
    )
