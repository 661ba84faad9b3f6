"""What is known of every file format and of every runtime; it is read without importing any of their libraries."""

from __future__ import annotations

import difflib
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from vitrail.core.errors import UnknownNameError
from vitrail.core.paths import typed_path

FormatName = Literal["onnx", "openvino", "torch-export", "aoti", "executorch", "litert", "coreml"]

RuntimeName = Literal["torch", "torch-compile", "onnxruntime", "openvino", "executorch", "litert", "aoti"]
"""Runtimes that can be measured on this machine; the others of :data:`RUNTIMES` only check files, or are browsers'."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file.

    Attributes:
        title: its name in messages and tables.
        suffix: the end of its file names.
        runtime: the runtime that an exported file is compared with its model in.
        batch_size: the only number of images that a file takes at once; None if it takes any.
        takes_quantized: whether a quantised model can be written in it, for its runtimes to compute in integers.
    """

    title: str
    suffix: str
    runtime: str
    batch_size: int | None = None
    takes_quantized: bool = False


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A program that runs models.

    Attributes:
        title: its name in messages and tables.
        module: the file of :mod:`vitrail.runtimes` with its ``load``; empty for browsers, which load files themselves.
        package: the distribution that it comes in; empty for browsers.
        extra: the optional extra of Vitrail that installs it; empty if Vitrail requires it anyway.
        formats: the formats of its files, the measured one first; empty if it takes a run folder or an ``nn.Module``.
        usual: whether it is measured unasked; such a runtime needs no extra, nor files that are exported only if asked.
        takes_shape: whether its ``load`` takes the shape of the images, which makes it faster.
        device: the processor of this machine, or browsers of other devices.
        backend: the part of a browser that computes.
        system: the only operating system that has it, as ``platform.system`` names it; empty if all have.
    """

    title: str
    module: str = ""
    package: str = ""
    extra: str = ""
    formats: tuple[FormatName, ...] = ()
    usual: bool = False
    takes_shape: bool = False
    device: Literal["cpu", "browser"] = "cpu"
    backend: Literal["", "wasm", "webgpu"] = ""
    system: str = ""

    @property
    def format(self) -> FormatName | None:
        """The format that is measured; None if the runtime takes a run folder."""
        return self.formats[0] if self.formats else None

    @property
    def batch_size(self) -> int | None:
        """The only number of images that its files take at once; None if they take any."""
        return FORMATS[self.formats[0]].batch_size if self.formats else None

    @property
    def executes_integers(self) -> bool:
        return any(FORMATS[name].takes_quantized for name in self.formats)


FORMATS: dict[str, Format] = {
    "onnx": Format(title="ONNX", suffix=".onnx", runtime="onnxruntime", takes_quantized=True),
    "openvino": Format(title="OpenVINO", suffix=".xml", runtime="openvino", takes_quantized=True),
    "torch-export": Format(title="torch.export", suffix=".pt2", runtime="torch-export"),
    "aoti": Format(title="AOTInductor", suffix=".aoti.pt2", runtime="aoti"),
    "executorch": Format(title="ExecuTorch", suffix=".pte", runtime="executorch", batch_size=1),
    "litert": Format(title="LiteRT", suffix=".tflite", runtime="litert", batch_size=1),
    "coreml": Format(title="Core ML", suffix=".mlpackage", runtime="coreml", batch_size=1),
}
"""Name -> format."""

RUNTIMES: dict[str, Runtime] = {
    "torch": Runtime(title="PyTorch", module="torch_eager", package="torch", usual=True),
    "torch-compile": Runtime(title="torch.compile", module="torch_compile", package="torch", usual=True),
    "onnxruntime": Runtime(
        title="ONNX Runtime",
        module="onnx_runtime",
        package="onnxruntime",
        formats=("onnx",),
        usual=True,
        takes_shape=True,
    ),
    "openvino": Runtime(
        title="OpenVINO",
        module="openvino_cpu",
        package="openvino",
        formats=("onnx", "openvino"),
        usual=True,
        takes_shape=True,
    ),
    "executorch": Runtime(
        title="ExecuTorch", module="executorch_cpu", package="executorch", extra="executorch", formats=("executorch",)
    ),
    "litert": Runtime(
        title="LiteRT", module="litert_cpu", package="ai-edge-litert", extra="litert", formats=("litert",)
    ),
    "aoti": Runtime(title="AOTInductor", module="aot_inductor", package="torch", formats=("aoti",)),
    "torch-export": Runtime(title="PyTorch", module="torch_export", package="torch", formats=("torch-export",)),
    "coreml": Runtime(
        title="Core ML", module="coreml", package="coremltools", extra="coreml", formats=("coreml",), system="Darwin"
    ),
    "onnxruntime-web": Runtime(title="onnxruntime-web", formats=("onnx",), device="browser", backend="wasm"),
    "onnxruntime-web-webgpu": Runtime(
        title="onnxruntime-web-webgpu", formats=("onnx",), device="browser", backend="webgpu"
    ),
}
"""Name -> runtime."""

MEASURED: tuple[RuntimeName, ...] = get_args(RuntimeName)

USUAL_RUNTIMES: tuple[RuntimeName, ...] = tuple(name for name in MEASURED if RUNTIMES[name].usual)


def check_formats(names: Iterable[str]) -> None:
    """Refuse formats that do not exist.

    Raises:
        UnknownNameError: with the nearest name.
    """
    for name in names:
        _check(name, FORMATS, "format")


def find_runtime(name: str) -> Runtime:
    """A runtime that loads models on this machine.

    Raises:
        UnknownNameError: there is none of that name; the message has the nearest one.
    """
    _check(name, {known: row for known, row in RUNTIMES.items() if row.module}, "runtime")
    return RUNTIMES[name]


def takers(format: str) -> list[str]:
    """The runtimes of this system that load files of a format, first the one that checks them."""
    own = FORMATS[format].runtime
    able = [name for name, known in RUNTIMES.items() if known.module and format in known.formats]
    here = [name for name in able if RUNTIMES[name].system in ("", platform.system())]
    return sorted(here, key=lambda name: name != own)


def runtime_title(name: str) -> str:
    """The title of a runtime; the name itself where a later version of Vitrail wrote it."""
    return RUNTIMES[name].title if name in RUNTIMES else name


def export_command(folder: Path, format: str) -> str:
    """The command that makes a run's files of a format."""
    return f"vitrail export {typed_path(folder)} --format {format}"


def _check(name: str, known: Mapping[str, object], kind: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise UnknownNameError(f"unknown {kind} '{name}'; {hint}")
