"""Files that other programs run, each verified against the model before it gets its name."""

from vitrail.export.aot_inductor import export_aoti
from vitrail.export.coreml_package import export_coreml
from vitrail.export.executorch_program import export_executorch
from vitrail.export.formats import FORMATS, Format, check_formats
from vitrail.export.litert_model import export_litert
from vitrail.export.onnx_file import export_onnx
from vitrail.export.openvino_ir import export_openvino
from vitrail.export.record import ExportRecord
from vitrail.export.run_files import VERIFICATION_IMAGES, export_run
from vitrail.export.torch_program import export_torch

__all__ = [
    "FORMATS",
    "VERIFICATION_IMAGES",
    "ExportRecord",
    "Format",
    "check_formats",
    "export_aoti",
    "export_coreml",
    "export_executorch",
    "export_litert",
    "export_onnx",
    "export_openvino",
    "export_run",
    "export_torch",
]
