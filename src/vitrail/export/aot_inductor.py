"""AOTInductor: machine code for this kind of processor, which C++ programs run without Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitrail.core.errors import ExportError
from vitrail.core.types import Preprocessing
from vitrail.export.contract import FLOAT_TOLERANCE, Target, about, as_json, torch_predictor, write_verified
from vitrail.export.record import ExportRecord
from vitrail.export.verify import Predictor
from vitrail.quantization import capture


def export_aoti(
    model: nn.Module,
    path: str | Path,
    *,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    images: Tensor,
    variant: str = "float",
    tolerance: float = FLOAT_TOLERANCE,
) -> ExportRecord:
    """Compile ``model`` to a ``.pt2`` package with a free batch size; needs a C++ compiler, and a minute.

    Arguments and errors as for :func:`~vitrail.export.onnx_file.export_onnx`. The code is for the instruction set of
    this machine's processor (AVX-512, say); ``torch._inductor.aoti_load_package(path)`` runs it. The library inside
    names the folders that PyTorch's headers lay in when it was compiled.
    """
    facts = about(preprocessing, classes)
    target = Target(
        format="aoti",
        title="AOTInductor",
        package="torch",
        write=lambda file: _write(model, images, facts, file),
        load=_load,
    )
    return write_verified(target, path, model, images, facts, variant=variant, tolerance=tolerance)


def _write(model: nn.Module, images: Tensor, facts: dict[str, Any], file: Path) -> None:
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import InvalidCxxCompiler

    program = capture(model, images, ExportError)
    try:
        aoti_compile_and_package(
            program, package_path=str(file), inductor_configs={"aot_inductor.metadata": as_json(facts)}
        )
    except InvalidCxxCompiler as failure:
        raise ExportError("AOTInductor found no C++ compiler; install g++ or clang, or name one in CXX") from failure


def _load(file: Path) -> Predictor:
    from torch._inductor import aoti_load_package

    return torch_predictor(aoti_load_package(str(file)))
