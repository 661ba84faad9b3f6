"""What is known of an exported file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RuntimeCheck:
    """An exported file in one of the runtimes that take it.

    Attributes:
        name: a name in :data:`~vitrail.runtimes.table.RUNTIMES`.
        runtime: the program with its version.
        max_relative_error, top1_agreement, unmatched_rows: see :class:`~vitrail.runtimes.alike.Agreement`; None
            where it does not run.
        outlier_score_error: max |file - model| of the outlier scores, relative to the largest number that they are a
            sum of; None where the file has none.
        failure: why the file must not be used there; empty if it agrees with the model.
    """

    name: str
    runtime: str
    max_relative_error: float | None = None
    top1_agreement: float | None = None
    unmatched_rows: float | None = None
    outlier_score_error: float | None = None
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """An exported file and how well it agrees with the model that it was made from.

    Attributes:
        path: where the file is; ``<path>.json`` lies beside it.
        format: a name in :data:`~vitrail.runtimes.table.FORMATS`.
        variant: "float", "int8", ...
        size_bytes: size of the file, with what belongs to it.
        runtime: the program that ran it for the comparison, with its version; None where nothing here can run it.
        verified: whether it was run and compared with the model; False only for Core ML off a Mac.
        max_relative_error: max |file - model| / max |model| over the outputs of all verification images.
        top1_agreement: share of the verification images for which both have the same largest output.
        unmatched_rows: share of the rows that only one of the two has, where they are chosen by their scores
            (:func:`~vitrail.runtimes.alike.compare_sets`); 0 elsewhere.
        num_images: number of images that it was verified on.
        batch_size: the only batch size that it takes; None if it takes any.
        dynamic_batch: whether it was run at more than one batch size.
        dynamic_size: whether it was run at more than one height and width, and agreed at both.
        weights_hash: the hash of the weights that it was made from; empty where it is not known.
        row_parts: number of channels of each part of an output row, where the outputs are sets of rows; else empty.
        outlier_score_error: see :class:`RuntimeCheck`; None where the file has one output.
        temperature: what the logits were divided by, see :class:`vitrail.tasks.Task`.
        checks: the same comparison in every runtime of this machine that takes the file, that of ``runtime`` first.
        cpu_features: features of the processor that it was verified on, see :mod:`vitrail.runtimes.processor`; 8-bit
            sums may saturate on one without VNNI.
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
    weights_hash: str = ""
    row_parts: tuple[int, ...] = ()
    outlier_score_error: float | None = None
    temperature: float = 1.0
    checks: tuple[RuntimeCheck, ...] = ()
    cpu_features: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the path becomes the bare file name, so that a run folder can be moved."""
        lists = {"row_parts": list(self.row_parts), "cpu_features": list(self.cpu_features)}
        return asdict(self) | {"path": self.path.name, "checks": [asdict(check) for check in self.checks]} | lists
