"""How a model is written in each format, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitrail.export import (
    aoti_package,
    coreml_package,
    executorch_program,
    litert_model,
    onnx_file,
    openvino_ir,
    torch_program,
)
from vitrail.export.source import Source

FLOAT_TOLERANCE = 1e-4
"""Kernels add in another order; all families stayed below 2e-6 in six runtimes."""

XNNPACK_TOLERANCE = 1e-3
"""XNNPACK approximates GELU: MaxViT differs by 2.3e-4, the other families by less than 2e-6."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """How a model is written in a format.

    Attributes:
        write: makes the file, with preprocessing and classes inside where the format has a place for them.
        tolerance: largest relative error of a float file.
        free_size: whether height and width can stay free.
        second_output: whether a file can have the outlier score as a second output.
        needs: modules that it imports, where they come with an optional extra.
        package: the distribution that is named where one of them is missing.
        then: a second command that installs what pip cannot resolve as a part of the extra.
    """

    write: Callable[[Source, Path], None]
    tolerance: float = FLOAT_TOLERANCE
    free_size: bool = False
    second_output: bool = False
    needs: tuple[str, ...] = ()
    package: str = ""
    then: str = ""


TARGETS: dict[str, Target] = {
    "onnx": Target(write=onnx_file.write, free_size=True, second_output=True),
    "openvino": Target(write=openvino_ir.write, second_output=True),
    "torch-export": Target(write=torch_program.write, second_output=True),
    "aoti": Target(write=aoti_package.write),
    "executorch": Target(
        write=executorch_program.write,
        tolerance=XNNPACK_TOLERANCE,
        needs=("executorch.exir", "executorch.runtime"),
        package="executorch",
    ),
    "litert": Target(
        write=litert_model.write,
        needs=("litert_torch", "ai_edge_litert.interpreter"),
        package="litert-torch",
        then=litert_model.CONVERTER,
    ),
    "coreml": Target(write=coreml_package.write, needs=("coremltools",), package="coremltools"),
}
"""Name of a format in :data:`~vitrail.runtimes.table.FORMATS` -> how it is written."""
