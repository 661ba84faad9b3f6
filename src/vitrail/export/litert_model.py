"""LiteRT, the runtime that was called TensorFlow Lite: Android, and boards with accelerators that read ``.tflite``."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.core.types import Preprocessing
from vitrail.export.contract import FLOAT_TOLERANCE, Target, about, as_json, need, one_image_program, write_verified
from vitrail.export.record import ExportRecord
from vitrail.export.verify import Predictor

CONVERTER = "pip install --no-deps litert-torch==0.10.0 litert-converter==0.5.0 xdsl==0.28.0"
"""Their metadata forbid this PyTorch and this typing-extensions, with which they nevertheless work."""


def export_litert(
    model: nn.Module,
    path: str | Path,
    *,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    images: Tensor,
    variant: str = "float",
    tolerance: float = FLOAT_TOLERANCE,
) -> ExportRecord:
    """Write ``model`` as a ``.tflite`` file for one image at a time, channels first as in PyTorch.

    Arguments and errors as for :func:`~vitrail.export.onnx_file.export_onnx`.

    Raises:
        MissingDependencyError: the ``litert`` extra or the converter is not installed.
    """
    need("litert_torch", "ai_edge_litert.interpreter", package="litert-torch", extra="litert", then=CONVERTER)
    facts = about(preprocessing, classes)
    target = Target(
        format="litert",
        title="LiteRT",
        package="ai-edge-litert",
        write=lambda file: _write(model, images, facts, file),
        load=_load,
        batch_size=1,
    )
    return write_verified(target, path, model, images, facts, variant=variant, tolerance=tolerance)


def _write(model: nn.Module, images: Tensor, facts: dict[str, Any], file: Path) -> None:
    # Not an import statement, because it is no requirement of ours: see CONVERTER.
    litert_torch = importlib.import_module("litert_torch")
    module = one_image_program(model, images).module(check_guards=False)
    litert_torch.convert(module, (torch.zeros(1, *images.shape[1:]),)).export(str(file))
    file.write_bytes(_with_metadata(file.read_bytes(), as_json(facts)))


def _with_metadata(data: bytes, values: dict[str, str]) -> bytes:
    """The same model with named buffers, which is where ``.tflite`` files keep metadata."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    model.metadata = list(model.metadata or [])
    for name, value in values.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(value.encode(), np.uint8)
        entry.name, entry.buffer = name, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata.append(entry)
    builder = flatbuffers.Builder(len(data) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _load(file: Path) -> Predictor:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()
    (name,), (answer,) = run.get_input_details(), run.get_output_details()
    return lambda images: run(**{name: images})[answer]
