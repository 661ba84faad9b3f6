"""ONNX: one file with its preprocessing and classes, for ONNX Runtime, browsers, and other programs that read ONNX."""

from __future__ import annotations

from pathlib import Path
from weakref import WeakKeyDictionary

import onnx
from torch import Tensor, nn

from vitrail.core.errors import ExportError
from vitrail.export.convert import to_onnx
from vitrail.export.model_outputs import model_outputs
from vitrail.export.source import Source
from vitrail.quantization import capture

LIMIT_BYTES = 2**31 - 1
"""A protocol buffer, and so a single ONNX file, cannot be larger."""

_CONVERTED: WeakKeyDictionary[Source, bytes] = WeakKeyDictionary()
"""The ONNX model of each source that still exists: OpenVINO's file is written from the same one."""


def write(source: Source, file: Path) -> None:
    """Write one ONNX file with a free batch size, and a free height and width if the source asks for it.

    Raises:
        ExportError: the model cannot be exported or is too large.
    """
    file.write_bytes(onnx_bytes(source))


def onnx_bytes(source: Source) -> bytes:
    """The ONNX model in memory, not yet verified. A source is converted once.

    Raises:
        ExportError: the model cannot be exported or is too large.
    """
    if source not in _CONVERTED:
        _CONVERTED[source] = _convert(source)
    return _CONVERTED[source]


def _convert(source: Source) -> bytes:
    _check_size(source.reference)
    module = source.written
    if source.dynamic_size:
        check_any_size(source.model, source.images)
        program = capture(module, source.images, ExportError, size_step=_size_step(module))
    else:
        program = capture(module, source.images, ExportError)
    proto = to_onnx(program, "image", source.output_names)
    for key, value in source.metadata.items():
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name = "vitrail"
    return _serialise(proto)


def check_any_size(model: nn.Module, images: Tensor) -> None:
    """Refuse a model that cannot take images of another size, in steps of what it divides height and width by.

    Raises:
        ExportError: the architecture is tied to one image size; the message has the reason.
    """
    try:
        model_outputs(model, other_size(model, images[:1]))
    except (ValueError, RuntimeError) as failure:  # an ImageSizeError of ours, or shapes that do not fit
        raise ExportError(f"{type(model).__name__} is tied to its image size: {failure}") from failure


def other_size(model: nn.Module, images: Tensor) -> Tensor:
    """The same images, taller by one step and wider by two: another size that the model must be able to take."""
    step = _size_step(model)
    height, width = images.shape[-2:]
    size = (height + step, width + 2 * step)
    return nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)


def _size_step(model: nn.Module) -> int:
    """What height and width must be multiples of; 32, which suits nearly all networks, for foreign models."""
    return int(getattr(getattr(model, "backbone", model), "size_divisor", 32))


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
