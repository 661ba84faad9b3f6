"""Write a model as one ONNX file that says what it is, once it is known to agree with the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor, nn

from vitrail.core.errors import ExportError
from vitrail.core.files import atomic_path
from vitrail.core.types import Preprocessing
from vitrail.export.convert import to_onnx
from vitrail.export.record import ExportRecord
from vitrail.export.verify import verify
from vitrail.quantization import QuantizedModel, capture

LIMIT_BYTES = 2**31 - 1
"""A protocol buffer, and so a single ONNX file, cannot be larger."""

FLOAT_TOLERANCE = 1e-4
"""Kernels add in another order; five timm models stayed below 2e-6."""

INTEGER_TOLERANCE = 0.1
"""Where a value lies on the edge between two codes, the last bit of a float decides, and layers amplify it."""


def export_onnx(
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
    """Write ``model``, or its quantised form, to one ONNX file with a free batch size, and ``<path>.json`` beside it.

    The file takes normalised float32 images (batch, c, h, w) named ``image`` and gives ``logits`` (or the
    ``output_name`` that the model has). Preprocessing, class names and the record are stored in its metadata, each
    as JSON under ``vitrail.preprocessing``, ``vitrail.classes``, ``vitrail.record``.

    Args:
        model: the float model.
        path: of the file; an older one is replaced only by a verified one.
        preprocessing: how an image becomes the model's input.
        classes: names of the outputs, in order.
        images: real normalised images (n, c, h, w), n >= 2, to verify the file on.
        variant: how the record calls the file.
        quantized: write this instead of ``model``; the file is then compared with its simulation.
        tolerance: largest relative error; 1e-4 for float files and 0.1 for integer ones by default.

    Raises:
        ExportError: the model cannot be exported, is too large, or the file disagrees; nothing is left behind.
    """
    path = Path(path)
    source: nn.Module = model if quantized is None else quantized
    if tolerance is None:
        tolerance = FLOAT_TOLERANCE if quantized is None else INTEGER_TOLERANCE
    _check_images(images)
    _check_size(source)
    program = capture(source if quantized is None else quantized.graph_module, images, ExportError)
    proto = to_onnx(program, "image", getattr(model, "output_name", "logits"))
    agreement = verify(_serialise(proto), source, images, tolerance)
    known: dict[str, Any] = {
        "variant": variant,
        "max_relative_error": agreement.max_relative_error,
        "top1_agreement": agreement.top1_agreement,
        "num_images": len(images),
        "dynamic_batch": True,
    }
    about = {"preprocessing": preprocessing.to_dict(), "classes": list(classes)}
    data = _serialise(_with_metadata(proto, about | {"record": known}))
    record = ExportRecord(path=path, size_bytes=len(data), **known)
    description = path.with_name(path.name + ".json")
    with atomic_path(path) as file, atomic_path(description) as json_file:
        file.write_bytes(data)
        json_file.write_text(json.dumps(about | {"record": record.to_dict()}, indent=2) + "\n", encoding="utf-8")
    return record


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or len(images) < 2:
        raise ExportError(
            f"verification images have shape {tuple(images.shape)}; pass at least 2 real normalised images (n, c, h, w)"
        )


def _check_size(model: nn.Module) -> None:
    size = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    if size > LIMIT_BYTES:
        raise ExportError(
            f"the weights take {size / 1e9:.1f} GB and one ONNX file holds at most 2.1 GB; export a smaller variant"
        )


def _with_metadata(proto: onnx.ModelProto, values: dict[str, Any]) -> onnx.ModelProto:
    for name, value in values.items():
        proto.metadata_props.add(key=f"vitrail.{name}", value=json.dumps(value, ensure_ascii=False))
    proto.producer_name = "vitrail"
    return proto


def _serialise(proto: onnx.ModelProto) -> bytes:
    try:
        return proto.SerializeToString()
    except Exception as failure:  # protobuf's class for this differs between its implementations
        raise ExportError(f"one ONNX file holds at most 2.1 GB: {failure}; export a smaller variant") from failure
