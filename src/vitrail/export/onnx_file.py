"""ONNX: one file that says what it is, for ONNX Runtime, browsers, and whatever reads ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from vitrail.core.errors import ExportError
from vitrail.core.types import Preprocessing
from vitrail.export.contract import (
    FLOAT_TOLERANCE,
    INTEGER_TOLERANCE,
    Target,
    about,
    as_json,
    check_images,
    write_verified,
)
from vitrail.export.convert import to_onnx
from vitrail.export.record import ExportRecord
from vitrail.export.verify import Predictor, model_outputs
from vitrail.quantization import QuantizedModel, capture

LIMIT_BYTES = 2**31 - 1
"""A protocol buffer, and so a single ONNX file, cannot be larger."""


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
    dynamic_size: bool = False,
) -> ExportRecord:
    """Write ``model``, or its quantised form, to one ONNX file with a free batch size, and ``<path>.json`` beside it.

    The file takes normalised float32 images (batch, c, h, w) named ``image`` and gives ``logits`` (or the
    ``output_name`` that the model has). Preprocessing and class names are stored in its metadata, each as JSON under
    ``vitrail.preprocessing`` and ``vitrail.classes``; the file beside it has the record too.

    Args:
        model: the float model.
        path: of the file; an older one is replaced only by a verified one.
        preprocessing: how an image becomes the model's input.
        classes: names of the outputs, in order.
        images: real normalised images (n, c, h, w), n >= 2, to verify the file on.
        variant: how the record calls the file.
        quantized: write this instead of ``model``; the file is then compared with its simulation.
        tolerance: largest relative error; 1e-4 for float files and 0.1 for integer ones by default.
        dynamic_size: leave height and width free too, and verify the file at a second size; for float models whose
            architecture is not tied to one size.

    Raises:
        ExportError: the model cannot be exported, is too large, or the file disagrees; nothing is left behind.
    """
    source: nn.Module = model if quantized is None else quantized
    facts = about(preprocessing, classes)
    target = Target(
        format="onnx",
        title="ONNX Runtime",
        package="onnxruntime",
        write=lambda file: file.write_bytes(onnx_bytes(model, images, facts, quantized, dynamic_size=dynamic_size)),
        load=_load,
        other_size=other_size(model, images) if dynamic_size else None,
    )
    default = FLOAT_TOLERANCE if quantized is None else INTEGER_TOLERANCE
    return write_verified(
        target, path, source, images, facts, variant=variant, tolerance=default if tolerance is None else tolerance
    )


def onnx_bytes(
    model: nn.Module,
    images: Tensor,
    facts: dict[str, Any],
    quantized: QuantizedModel | None,
    *,
    dynamic_size: bool = False,
) -> bytes:
    """The ONNX model in memory, not yet verified; arguments as for :func:`export_onnx`.

    Raises:
        ExportError: the model cannot be exported or is too large.
    """
    check_images(images)
    _check_size(model if quantized is None else quantized)
    if quantized is not None and dynamic_size:
        raise ExportError("a quantised model keeps the image size of its calibration; leave out the free image size")
    source = model if quantized is None else quantized.graph_module
    program = capture_any_size(source, images) if dynamic_size else capture(source, images, ExportError)
    proto = to_onnx(program, "image", getattr(model, "output_name", "logits"))
    for key, value in as_json(facts).items():
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name = "vitrail"
    return _serialise(proto)


def capture_any_size(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """The graph of a model with free batch size, height and width, these in steps of what the model divides them by.

    Raises:
        ExportError: the architecture is tied to one image size; the message has the reason.
    """
    try:
        model_outputs(model, other_size(model, images[:1]))
    except (ValueError, RuntimeError) as failure:  # an ImageSizeError of ours, or shapes that do not fit
        raise ExportError(f"{type(model).__name__} is tied to its image size: {failure}") from failure
    return capture(model, images, ExportError, size_step=_size_step(model))


def other_size(model: nn.Module, images: Tensor) -> Tensor:
    """The same images, taller by one step and wider by two: another size that the model must be able to take."""
    step = _size_step(model)
    height, width = images.shape[-2:]
    size = (height + step, width + 2 * step)
    return nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)


def _size_step(model: nn.Module) -> int:
    """What height and width must be multiples of; 32, which suits nearly all networks, for foreign models."""
    return int(getattr(getattr(model, "backbone", model), "size_divisor", 32))


def _load(file: Path) -> Predictor:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    run: Callable[..., Any] = session.run
    return lambda images: run(None, {name: images})[0]


def _check_size(model: nn.Module) -> None:
    size = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    if size > LIMIT_BYTES:
        raise ExportError(
            f"the weights take {size / 1e9:.1f} GB and one ONNX file holds at most 2.1 GB; export a smaller variant"
        )


def _serialise(proto: onnx.ModelProto) -> bytes:
    try:
        return proto.SerializeToString()
    except Exception as failure:  # protobuf's class for this differs between its implementations
        raise ExportError(f"one ONNX file holds at most 2.1 GB: {failure}; export a smaller variant") from failure
