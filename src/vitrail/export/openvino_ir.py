"""OpenVINO's own format: ``model.xml`` with its weights in ``model.bin``, for processors, GPUs and NPUs of Intel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vitrail.export.onnx_file import onnx_bytes
from vitrail.export.source import Source
from vitrail.runtimes.openvino_core import openvino_core


def write(source: Source, file: Path) -> None:
    """Write OpenVINO IR with a free batch size; ``file`` is the ``.xml``, and weights keep their 32 bits.

    Facts are in its ``rt_info`` under ``vitrail``. A processor with bfloat16 units computes in these unless
    ``INFERENCE_PRECISION_HINT`` is ``f32``, and differs by 2e-3 to 2e-2.

    Raises:
        ExportError: the model cannot be exported or is too large.
    """
    import openvino

    model = openvino_core().read_model(onnx_bytes(source))
    if source.quantized is not None:
        _keep_tokens_apart(model)
    for name, value in source.metadata.items():
        model.set_rt_info(value, name.split("."))
    openvino.save_model(model, file, compress_to_fp16=False)


def _keep_tokens_apart(model: Any) -> None:
    """Where tokens of several maps are joined, OpenVINO 2026.4 joins their scales too, one a token, and then refuses to
    multiply these tokens by a matrix. A minimum with the largest float changes no value, and stops it from doing so."""
    from openvino import opset13

    for operation in model.get_ordered_ops():
        rank = operation.output(0).get_partial_shape().rank
        if operation.get_type_name() != "Concat" or rank.is_dynamic or rank.get_length() != 3:
            continue
        sources = [one.get_source_output().get_node().get_type_name() for one in operation.inputs()]
        if len(sources) - sources.count("Constant") < 2:
            continue
        readers = operation.output(0).get_target_inputs()
        guard = opset13.minimum(operation.output(0), opset13.constant(np.finfo(np.float32).max))
        for reader in readers:
            reader.replace_source_output(guard.output(0))
