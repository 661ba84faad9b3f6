"""The files of a run that verbs read, as models: each is checked as a whole when it is read.

``run.json`` has its own module, :mod:`vitrail.runs.description`; ``images.csv`` is read by :mod:`vitrail.runs.parts`.
Fields of later versions are kept; files of version 0.1.0 have no ``version`` and the same layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from vitrail.core.checked import Count, FileModel, Number, Share, checked
from vitrail.core.errors import RunError
from vitrail.core.files import read_json
from vitrail.runs.findings_schema import FindingsEntry
from vitrail.runs.run import Run
from vitrail.tasks.class_means import macro_scores

VERSION = 1
"""Version of the layouts below, which the files have as ``version``."""

Part = Literal["train", "val", "test"]


class ScoreEntry(FileModel):
    """A score of the task, as :class:`~vitrail.tasks.Score`."""

    name: str
    title: str
    higher_is_better: bool
    percent: bool


class ClassEntry(FileModel):
    """Results of one class: a classifier's, or other numbers that the task measures."""

    name: str
    precision: Share | None = None
    recall: Share | None = None
    f1: Share | None = None
    support: Count | None = None


class BinEntry(FileModel):
    """A bin of the calibration."""

    low: Share
    high: Share
    confidence: Share
    accuracy: Share
    count: Count


class ReportEntry(FileModel):
    """Results of one file, with a number for every score of the task beside these."""

    num_images: Count = 0
    per_class: tuple[ClassEntry, ...] = ()
    loss: Number | None = None
    ece: Number | None = None
    agreement: Number | None = None
    confusion: tuple[tuple[Count, ...], ...] | None = None
    calibration: tuple[BinEntry, ...] | None = None
    file_hash: str = ""

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        size = len(self.per_class)
        if self.confusion is None:
            return self
        if [len(row) for row in self.confusion] != [size] * size:
            raise ValueError(f"confusion is not {size} rows of {size} counts, one a class")
        for row in self.per_class:
            if None in (row.precision, row.recall, row.f1, row.support):
                raise ValueError(f"per_class has no precision, recall, f1 or support of '{row.name}'")
        return self


class PictureEntry(FileModel):
    """A picture; examples of a classifier have its label and the answer too."""

    name: str
    jpeg_base64: str
    label: str | None = None
    predicted: str | None = None
    probability: Share | None = None
    truth_base64: str | None = None
    difference_base64: str | None = None
    note: str | None = None
    group: Literal["worst", "best"] | None = None


class SampleEntry(FileModel):
    """A picture of a training image."""

    name: str
    label: str
    jpeg_base64: str


class DataFacts(FileModel):
    """The images that were evaluated; None where the file has no such entry."""

    source: str | None = None
    fingerprint: str | None = None
    classes: tuple[str, ...] | None = None
    counts: dict[Part, tuple[Count, ...]] | None = None
    totals: dict[Part, Count] | None = None
    skipped: tuple[str, ...] | None = None
    remarks: tuple[str, ...] | None = None
    samples: tuple[SampleEntry, ...] | None = None


class EvaluationFile(FileModel):
    """``evaluation.json``, see :mod:`vitrail.runs.evaluate`."""

    version: int = VERSION
    split: str = ""
    scores: tuple[ScoreEntry, ...] = ()
    reports: dict[str, ReportEntry]
    stale: dict[str, str] = {}
    findings: FindingsEntry = FindingsEntry()
    examples: tuple[PictureEntry, ...] = ()
    difference: str = ""
    data: DataFacts = DataFacts()

    @model_validator(mode="after")
    def _check_examples(self) -> Self:
        answered = [None not in (one.label, one.predicted, one.probability) for one in self.examples]
        if any(one.label is not None for one in self.examples) and not all(answered):
            raise ValueError(f"example {answered.index(False)} has no label, predicted or probability")
        return self


class ShareEntry(FileModel):
    """Robustness under a group of changes."""

    top1: Share
    consistency: Share


class PointEntry(FileModel):
    """A point of a curve."""

    x: Number
    top1: Share
    consistency: Share
    top1_low: Share | None = None
    top1_high: Share | None = None


class CurveEntry(FileModel):
    """A curve of one change."""

    name: str
    group: str
    unit: str = ""
    points: tuple[PointEntry, ...]


class RobustnessFile(FileModel):
    """``robustness.json``, see :mod:`vitrail.runs.robustness`."""

    version: int = VERSION
    clean_top1: Share
    num_images: Count
    diagonal_consistency: Share | None = None
    summary: dict[str, ShareEntry]
    curves: tuple[CurveEntry, ...]
    skipped: dict[str, str] = {}


class CheckEntry(FileModel):
    """How an exported file answered in a runtime, see :class:`~vitrail.export.record.RuntimeCheck`."""

    name: str
    runtime: str
    failure: str = ""


class RecordEntry(FileModel):
    """What is known of an exported file, see :class:`~vitrail.export.ExportRecord`."""

    format: str = "onnx"
    runtime: str | None = None
    verified: bool = True
    size_bytes: Count | None = None
    max_relative_error: Number | None = None
    top1_agreement: Share | None = None
    unmatched_rows: Share | None = None
    num_images: Count = 0
    batch_size: Count | None = None
    dynamic_batch: bool = False
    dynamic_size: bool = False
    weights_hash: str = ""
    row_parts: tuple[Count, ...] = ()
    outlier_score_error: Number | None = None
    temperature: Annotated[float, Field(gt=0, lt=1e6)] = 1.0
    checks: tuple[CheckEntry, ...] = ()


class RecordFile(FileModel):
    """The JSON beside an exported file."""

    version: int = VERSION
    record: RecordEntry


class PlaceEntry(FileModel):
    """The machine of a measurement, see :func:`~vitrail.bench.environment.environment`."""

    cpu: str = "unknown"
    cores: int | str = "?"
    cpu_features: tuple[str, ...] = ()
    memory_gb: int | float | str = "?"
    system: str = "unknown"
    python: str = "?"
    versions: dict[str, str] = {}
    date: str = "unknown"


class OperandEntry(FileModel):
    """An operand of a plan; the rest of it is read by its quantizer."""

    name: str
    kind: str = ""


class PlanFile(FileModel):
    """``quantization.json``, see :class:`~vitrail.quantization.QuantizationPlan`."""

    operands: tuple[OperandEntry, ...]
    config: dict[str, Any] = {}
    num_images: Count | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    weights_hash: str = ""


class ScoresFile(FileModel):
    """``scores.json``, see :mod:`vitrail.compare.outcome`."""

    version: int = VERSION
    scores: dict[str, Number]
    names: tuple[str, ...]


Contents = TypeVar("Contents", bound=FileModel)


def read_file(model: type[Contents], path: Path, remedy: str) -> Contents:
    """The contents of a file of a run.

    Raises:
        RunError: a field is missing or wrong; the message has the remedy.
        VitrailError: the file is missing or is not JSON.
    """
    return checked(model, read_json(path), str(path), remedy)


def read_evaluation(run: Run) -> dict[str, Any] | None:
    """The contents of ``evaluation.json`` as plain values, with the scores of the run's task in every report.

    What the file lacks is missing, but for ``scores``, ``examples`` and ``data``; the scores and the ``loss`` of a
    report are None then.

    Returns:
        None without the file.

    Raises:
        RunError: a field is missing or wrong.
        VitrailError: the file is not JSON.
    """
    if not run.evaluation.exists():
        return None
    remedy = f"make it again with: vitrail evaluate {run.folder}"
    values = read_file(EvaluationFile, run.evaluation, remedy).model_dump(mode="json", exclude_none=True)
    description = run.read()
    for name, report in values["reports"].items():
        if description.kind.task.per_image:
            values["reports"][name] = report = macro_scores(report["per_class"]) | report  # runs of 0.2 lack them
        for score in (*(score.name for score in description.kind.scores), "loss"):
            value = report.setdefault(score, None)
            if value is not None and not _is_number(value):
                raise RunError(f"{run.evaluation}: 'reports.{name}.{score}' is {value!r}, not a number; {remedy}")
        for row in report["per_class"]:
            for column in [column for column, value in row.items() if column != "name" and not _is_number(value)]:
                del row[column]  # of a later version
    classes = values["data"].get("classes", description.classes)
    for part, counts in values["data"].get("counts", {}).items():
        if len(counts) != len(classes):
            found = f"{len(counts)} counts for {len(classes)} classes"
            raise RunError(f"{run.evaluation}: 'data.counts.{part}' has {found}; {remedy}")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300


def read_record(run: Run, file: Path) -> dict[str, Any]:
    """The record beside an exported file as plain values; empty without it.

    Raises:
        RunError: a field is missing or wrong.
        VitrailError: the file is not JSON.
    """
    beside = file.with_name(file.name + ".json")
    if not beside.exists():
        return {}
    remedy = f"make it again with: vitrail export {run.folder}"
    record: dict[str, Any] = read_file(RecordFile, beside, remedy).record.model_dump()
    return record
