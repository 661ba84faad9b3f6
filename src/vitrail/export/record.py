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
        variant: "float", "int8", ...
        size_bytes: of the file.
        max_relative_error: max |file - model| / max |model| over the outputs of all verification images.
        top1_agreement: share of the verification images for which both have the same largest output.
        num_images: how many images it was verified on.
        dynamic_batch: it was run at more than one batch size.
    """

    path: Path
    variant: str
    size_bytes: int
    max_relative_error: float
    top1_agreement: float
    num_images: int
    dynamic_batch: bool

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the path becomes the bare file name, so that a run folder can be moved."""
        return asdict(self) | {"path": self.path.name}
