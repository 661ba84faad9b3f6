"""LiteRT, the runtime that was called TensorFlow Lite: Android, and boards with accelerators that read ``.tflite``."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import torch

from vitrail.export.one_image import one_image_program
from vitrail.export.source import Source

CONVERTER = "pip install --no-deps litert-torch==0.10.0 litert-converter==0.5.0 xdsl==0.28.0"
"""Their metadata forbid this PyTorch and this typing-extensions, with which they nevertheless work."""


def write(source: Source, file: Path) -> None:
    """Write a ``.tflite`` file for one image at a time, channels first as in PyTorch.

    Raises:
        ExportError: the model cannot be captured.
    """
    # Not an import statement, because it is no requirement of ours: see CONVERTER.
    litert_torch = importlib.import_module("litert_torch")
    module = one_image_program(source.model, source.images).module(check_guards=False)
    litert_torch.convert(module, (torch.zeros(1, *source.images.shape[1:]),)).export(str(file))
    file.write_bytes(_with_metadata(file.read_bytes(), source.metadata))


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
