"""The formats by name, for those who let the user choose."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from vitrail.core.errors import UnknownNameError
from vitrail.export.record import ExportRecord


@dataclass(frozen=True, kw_only=True)
class Format:
    """What can be chosen.

    Attributes:
        function: module and name of the function that writes it.
        takes_quantized: it can be written from a quantised model too.
        purpose: what runs it, for people.
    """

    function: str
    purpose: str
    takes_quantized: bool = False

    def exporter(self) -> Callable[..., ExportRecord]:
        """The function, imported on first use."""
        module, name = self.function.split(":")
        found: Callable[..., ExportRecord] = getattr(importlib.import_module(module), name)
        return found


FormatName = Literal["onnx", "openvino", "torch-export", "aoti", "executorch", "litert", "coreml"]

FORMATS: dict[str, Format] = {
    "onnx": Format(
        function="vitrail.export.onnx_file:export_onnx",
        purpose="ONNX Runtime, browsers, TensorRT",
        takes_quantized=True,
    ),
    "openvino": Format(
        function="vitrail.export.openvino_ir:export_openvino",
        purpose="Intel processors, GPUs and NPUs",
        takes_quantized=True,
    ),
    "torch-export": Format(
        function="vitrail.export.torch_program:export_torch", purpose="PyTorch, and compilers that start from its graph"
    ),
    "aoti": Format(
        function="vitrail.export.aot_inductor:export_aoti", purpose="C++ programs without Python, through AOTInductor"
    ),
    "executorch": Format(
        function="vitrail.export.executorch_program:export_executorch", purpose="phones, through ExecuTorch and XNNPACK"
    ),
    "litert": Format(
        function="vitrail.export.litert_model:export_litert", purpose="Android and boards, through LiteRT (TFLite)"
    ),
    "coreml": Format(
        function="vitrail.export.coreml_package:export_coreml", purpose="iPhones, iPads and Macs, through Core ML"
    ),
}
"""Name -> how it is written; :data:`vitrail.core.run.SUFFIXES` has the names of the files."""


def check_formats(names: Iterable[str]) -> None:
    """Refuse names that do not exist.

    Raises:
        UnknownNameError: with the nearest name.
    """
    for name in names:
        if name not in FORMATS:
            close = difflib.get_close_matches(name, FORMATS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(FORMATS)}"
            raise UnknownNameError(f"unknown format '{name}'; {hint}")
