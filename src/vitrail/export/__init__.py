"""Files that other programs run, each verified against the model before it gets its name."""

from vitrail.export.file import export_onnx
from vitrail.export.record import ExportRecord

__all__ = ["ExportRecord", "export_onnx"]
