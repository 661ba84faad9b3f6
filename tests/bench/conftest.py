from __future__ import annotations

from tiny_onnx import onnx_file, write_onnx_fixture

__all__ = ["onnx_file", "write_onnx_fixture"]
