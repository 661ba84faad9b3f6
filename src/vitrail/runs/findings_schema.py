"""``findings`` of ``evaluation.json``, as a model: what answers say beside scores."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vitrail.core.checked import Count, FileModel, Number, Share
from vitrail.tasks.findings.findings import STEPS


class RightEntry(FileModel):
    """How much is right, of how much, and the 95 % interval of the share."""

    count: Annotated[float, Field(ge=0, le=2**53)]
    of: Annotated[float, Field(ge=0, le=2**53)]
    low: Share
    high: Share


class TrivialEntry(FileModel):
    """What an answer reaches that looks at no image."""

    answer: str
    scores: dict[str, Number] = {}


class LinesEntry(FileModel):
    """A chart of shares, see :class:`~vitrail.tasks.findings.findings.Curve`."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
    title: str
    x: str
    y: str
    lines: dict[str, tuple[tuple[Share, Share], ...]]
    note: str = ""


class ThresholdEntry(FileModel):
    """What a least confidence does, see :class:`~vitrail.tasks.findings.findings.Threshold`."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
    title: str
    start: Share
    counts: dict[str, tuple[Count, ...]]
    shown: tuple[tuple[str, str, str], ...]

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        if any(len(values) != len(STEPS) for values in self.counts.values()):
            raise ValueError(f"counts have not {len(STEPS)} values each")
        if missing := {name for _, *names in self.shown for name in names if name} - self.counts.keys():
            raise ValueError(f"there are no counts {', '.join(sorted(missing))}")
        return self


class TableEntry(FileModel):
    """A table, see :class:`~vitrail.tasks.findings.findings.Table`."""

    title: str
    columns: dict[str, Literal["text", "count", "percent", "number"]]
    rows: tuple[tuple[str | Number | None, ...], ...]

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells for {len(self.columns)} columns")
            for kind, cell in zip(self.columns.values(), row, strict=True):
                if cell is not None and isinstance(cell, str) != (kind == "text"):
                    raise ValueError(f"{cell!r} is in a column of kind {kind}")
        return self


class MatrixEntry(FileModel):
    """What was taken for what, see :class:`~vitrail.tasks.findings.findings.Matrix`."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[Count, ...], ...]
    shares: bool = False

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        if [len(row) for row in self.counts] != [len(self.columns)] * len(self.rows):
            raise ValueError(f"counts are not {len(self.rows)} rows of {len(self.columns)}")
        return self


class FindingsEntry(FileModel):
    """What the answers of the weights say beside scores; evaluations of earlier versions have none."""

    right: RightEntry | None = None
    intervals: dict[str, tuple[Number, Number]] = {}
    trivial: TrivialEntry | None = None
    numbers: dict[str, Number] = {}
    curves: tuple[LinesEntry, ...] = ()
    thresholds: tuple[ThresholdEntry, ...] = ()
    tables: tuple[TableEntry, ...] = ()
    matrices: tuple[MatrixEntry, ...] = ()
