"""What the runs have for devices to measure: files, their accuracy, and the answer that a device must give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitrail.core.errors import BenchError
from vitrail.core.files import file_hash
from vitrail.runs.export import stale_reason
from vitrail.runs.run import Run
from vitrail.runs.schema import read_evaluation
from vitrail.runtimes import Images, export_command, open_session

FLOAT_TOLERANCE, INTEGER_TOLERANCE = 1e-3, 0.1
"""Largest relative error of a device's answer. The processors of devices add in another order and graphics processors
round more; at the edge between two 8-bit codes the last bit decides."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good the answers of a file are.

    Attributes:
        title: title of the task's main score, with its unit, e.g. "top-1 (%)".
        value: value of the score, in that unit.
        higher_is_better: whether the higher of two values is the better one.
    """

    title: str
    value: float
    higher_is_better: bool


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A file that devices may measure.

    Attributes:
        id: hash of its bytes: measurements belong to contents, not to names.
        run: the run that it lies in.
        run_name: name of the run, where there are several; else empty.
        variant: "float", "int8", ...
        label: its name in plots.
        path: the file.
        stamp: size and time of change, to notice when the file is replaced.
        shape: shape of the input (b, c, h, w).
        images, answer: float32 bytes of an input, and of ONNX Runtime's output for it on this machine.
        quality: how good its answers are; None if the run was not evaluated.
    """

    id: str
    run: Run
    run_name: str
    variant: str
    label: str
    path: Path
    stamp: tuple[int, int]
    shape: tuple[int, int, int, int]
    images: bytes
    answer: bytes
    quality: Quality | None

    @property
    def size_bytes(self) -> int:
        return self.stamp[0]

    @property
    def tolerance(self) -> float:
        return FLOAT_TOLERANCE if self.variant == "float" else INTEGER_TOLERANCE

    @property
    def is_unchanged(self) -> bool:
        return self.path.is_file() and _stamp(self.path) == self.stamp


def read_offers(runs: Sequence[Run], batch_size: int, seed: int) -> list[Offer]:
    """Every ONNX file of the runs.

    Raises:
        BenchError: a run has no such file, one of other weights, one that does not run, or the same one as another run.
        RunError: a run does not describe itself.
    """
    names = [run.folder.resolve().name for run in runs]
    offers: list[Offer] = []
    for run, name in zip(runs, names, strict=True):
        label = name if names.count(name) == 1 else str(run.folder)
        found = [
            _offer(run, label if len(runs) > 1 else "", variant, f"{label} {variant}", batch_size, seed)
            for variant in run.variants()
            if run.onnx(variant).is_file()
        ]
        if not found:
            raise BenchError(f"run {run.folder} has no ONNX file; make it with: {export_command(run.folder, 'onnx')}")
        offers += found
    ids = [offer.id for offer in offers]
    for offer in offers:
        if ids.count(offer.id) > 1:
            raise BenchError(f"{offer.path} has the same contents as another file of these runs; name one of them only")
    return offers


def _offer(run: Run, run_name: str, variant: str, label: str, batch_size: int, seed: int) -> Offer:
    path = run.onnx(variant)
    if stale := stale_reason(run, path):
        raise BenchError(stale)
    shape = (batch_size, *run.read().image_shape)
    images: Images = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    answer = open_session(path, "onnxruntime")(images)
    return Offer(
        id=file_hash(path),
        run=run,
        run_name=run_name,
        variant=variant,
        label=label,
        path=path,
        stamp=_stamp(path),
        shape=shape,
        images=images.astype("<f4").tobytes(),
        answer=answer.astype("<f4").tobytes(),
        quality=_quality(run, variant),
    )


def _quality(run: Run, variant: str) -> Quality | None:
    """From ``evaluation.json``: of the file itself, or of the weights that a float file was verified against."""
    evaluation = read_evaluation(run) or {}
    reports = evaluation.get("reports", {})
    report = reports.get(f"onnx-{variant}") or (reports.get("torch-float") if variant == "float" else None)
    main = next(iter(evaluation.get("scores", [])), None)
    if report is None or main is None or report.get(main["name"]) is None:
        return None
    percent = main["percent"]
    return Quality(
        title=f"{main['title']} (%)" if percent else main["title"],
        value=(100 if percent else 1) * report[main["name"]],
        higher_is_better=main["higher_is_better"],
    )


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
