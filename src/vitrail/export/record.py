"""What is known of an exported file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """An exported file and how well it agrees with the model that it was made from.

    Attributes:
        path: of the file; ``<path>.json`` lies beside it.
        format: a name in :data:`~vitrail.export.formats.FORMATS`.
        variant: "float", "int8", ...
        size_bytes: of the file, with what belongs to it.
        runtime: what ran it for the comparison, with its version; None where nothing here can run it.
        verified: it was run and compared with the model; False only for Core ML off a Mac.
        max_relative_error: max |file - model| / max |model| over the outputs of all verification images.
        top1_agreement: share of the verification images for which both have the same largest output.
        unmatched_rows: share of the rows that only one of the two has, where they are chosen by their scores
            (:func:`~vitrail.export.verify.compare_sets`); 0 elsewhere.
        num_images: how many images it was verified on.
        batch_size: the only one that it takes; None if it takes any.
        dynamic_batch: it was run at more than one batch size.
        dynamic_size: it was run at more than one height and width, and agreed at both.
    """

    path: Path
    format: str = "onnx"
    variant: str
    size_bytes: int
    runtime: str | None
    verified: bool = True
    max_relative_error: float | None
    top1_agreement: float | None
    unmatched_rows: float | None = 0.0
    num_images: int
    batch_size: int | None = None
    dynamic_batch: bool
    dynamic_size: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the path becomes the bare file name, so that a run folder can be moved."""
        return asdict(self) | {"path": self.path.name}
