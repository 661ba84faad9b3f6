"""AOTInductor: machine code for this kind of processor, which C++ programs run without Python."""

from __future__ import annotations

from pathlib import Path

from vitrail.core.errors import ExportError
from vitrail.export.source import Source
from vitrail.quantization import capture


def write(source: Source, file: Path) -> None:
    """Compile a ``.pt2`` package with a free batch size; needs a C++ compiler, and a minute.

    The code is for the instruction set of this machine's processor (AVX-512, say);
    ``torch._inductor.aoti_load_package(path)`` runs it. The library inside names the folders that PyTorch's headers lay
    in when it was compiled.

    Raises:
        ExportError: the model cannot be captured, or there is no compiler.
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import InvalidCxxCompiler

    program = capture(source.model, source.images, ExportError)
    try:
        aoti_compile_and_package(
            program, package_path=str(file), inductor_configs={"aot_inductor.metadata": source.metadata}
        )
    except InvalidCxxCompiler as failure:
        raise ExportError("AOTInductor found no C++ compiler; install g++ or clang, or name one in CXX") from failure
