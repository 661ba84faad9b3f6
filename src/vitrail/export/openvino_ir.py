"""OpenVINO's own format: ``model.xml`` with its weights in ``model.bin``, for processors, GPUs and NPUs of Intel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitrail.core.openvino_core import openvino_core
from vitrail.core.types import Preprocessing
from vitrail.export.contract import FLOAT_TOLERANCE, INTEGER_TOLERANCE, Target, about, as_json, write_verified
from vitrail.export.onnx_file import onnx_bytes
from vitrail.export.record import ExportRecord
from vitrail.export.verify import Predictor
from vitrail.quantization import QuantizedModel


def export_openvino(
    model: nn.Module,
    path: str | Path,
    *,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    images: Tensor,
    variant: str = "float",
    quantized: QuantizedModel | None = None,
    tolerance: float | None = None,
) -> ExportRecord:
    """Write ``model``, or its quantised form, as OpenVINO IR with a free batch size; weights keep their 32 bits.

    Arguments and errors as for :func:`~vitrail.export.onnx_file.export_onnx`; ``path`` is that of the ``.xml``. Facts
    are in its ``rt_info`` under ``vitrail``. It is compared with the model in float32: a processor with bfloat16 units
    computes in these unless ``INFERENCE_PRECISION_HINT`` is ``f32``, and differs by 2e-3 to 2e-2.
    """
    facts = about(preprocessing, classes)
    target = Target(
        format="openvino",
        title="OpenVINO",
        package="openvino",
        write=lambda file: _write(onnx_bytes(model, images, facts, quantized), facts, file, quantized is not None),
        load=_load,
    )
    default = FLOAT_TOLERANCE if quantized is None else INTEGER_TOLERANCE
    return write_verified(
        target,
        path,
        model if quantized is None else quantized,
        images,
        facts,
        variant=variant,
        tolerance=default if tolerance is None else tolerance,
    )


def _write(proto: bytes, facts: dict[str, Any], file: Path, integers: bool) -> None:
    import openvino

    model = openvino_core().read_model(proto)
    if integers:
        _keep_tokens_apart(model)
    for name, value in as_json(facts).items():
        model.set_rt_info(value, name.split("."))
    openvino.save_model(model, file, compress_to_fp16=False)


def _keep_tokens_apart(model: Any) -> None:
    """Where tokens of several maps are joined, OpenVINO 2026.4 joins their scales too, one a token, and then refuses to
    multiply these tokens by a matrix. A minimum with the largest float changes no value, and stops it from doing so."""
    import numpy as np
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


def _load(file: Path) -> Predictor:
    compiled = openvino_core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled(images)[0]
