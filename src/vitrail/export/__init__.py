"""Files that other programs run, each verified against the model before it gets its name."""

from vitrail.export.record import ExportRecord
from vitrail.export.verified import export_model, export_source
from vitrail.runtimes import FORMATS

__all__ = ["FORMATS", "ExportRecord", "export_model", "export_source"]
