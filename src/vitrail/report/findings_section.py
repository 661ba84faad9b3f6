"""What answers say beside scores, ready for the page; it is drawn alike for every task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vitrail.report.charts import share_lines
from vitrail.report.first_screen import is_trivial
from vitrail.report.written import number, percent, score
from vitrail.tasks import Score
from vitrail.tasks.findings.plain_words import grouped

MOST_ROWS = 40
"""Rows of a table that the page shows; ``evaluation.json`` has all."""

CHART_SIZE = (4.6, 3.3)
"""Inches."""

WRITTEN: dict[str, Callable[[Any], str]] = {"text": str, "count": grouped, "percent": percent, "number": number}


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A table of text.

    Attributes:
        title: caption.
        headings: of the columns.
        numeric: whether each column is right-aligned.
        rows: the cells.
    """

    title: str
    headings: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class ColouredCells:
    """A table of counts on coloured cells.

    Attributes:
        title: caption.
        columns: headings.
        rows: (name, cells), each cell (text, share of the row in percent, class of its colour).
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, float, str]]]]


@dataclass(frozen=True, kw_only=True)
class FindingsSection:
    """What is shown beside the scores.

    Attributes:
        trivial: what an answer does that looks at no image; "" where that is not known.
        trivial_scores: its score for each score of the page, as text.
        marks: sentences on scores that are no better, and on intervals.
        charts: (title, picture, note).
        tables: as text.
        matrices: coloured.
    """

    trivial: str
    trivial_scores: Sequence[str]
    marks: Sequence[str]
    charts: Sequence[tuple[str, Markup, str]]
    tables: Sequence[Cells]
    matrices: Sequence[ColouredCells]


def read_findings(
    findings: Mapping[str, Any], scores: Sequence[Mapping[str, Any]], report: Mapping[str, Any]
) -> FindingsSection:
    """The section from ``findings`` of ``evaluation.json``; empty for evaluations of earlier versions.

    Args:
        findings: may lack anything.
        scores: the scores of the page.
        report: of the weights.
    """
    trivial = findings.get("trivial") or {"answer": "", "scores": {}}
    return FindingsSection(
        trivial=trivial["answer"],
        trivial_scores=[score(trivial["scores"].get(one["name"]), one) for one in scores],
        marks=[mark for one in scores for mark in _marks(one, findings, report, trivial)],
        charts=[_chart(one) for one in findings.get("curves", ())],
        tables=[_table(one) for one in findings.get("tables", ()) if one["rows"]],
        matrices=[_matrix(one) for one in findings.get("matrices", ())],
    )


def _marks(
    about: Mapping[str, Any], findings: Mapping[str, Any], report: Mapping[str, Any], trivial: Mapping[str, Any]
) -> list[str]:
    """A score's interval, and whether a trivial answer is as good."""
    name, interval = about["name"], findings.get("intervals", {}).get(about["name"])
    said = f", 95 % interval {score(interval[0], about)} to {score(interval[1], about)}" if interval else ""
    if is_trivial(Score(**{key: about[key] for key in Score.__dataclass_fields__}), report, findings):
        return [f"{about['title']} {score(report[name], about)}{said}: no better than {trivial['answer']}."]
    return [f"{about['title']} {score(report[name], about)}{said}."] if said else []


def _chart(curve: Mapping[str, Any]) -> tuple[str, Markup, str]:
    ends = ", ".join(f"{label} ends at {percent(points[-1][1])}" for label, points in curve["lines"].items() if points)
    alt = f"{curve['title']}. Across: {curve['x']}. Up: {curve['y']}. {ends}."
    lines = {label: points for label, points in curve["lines"].items() if points}
    picture = share_lines(f"curve-{curve['name']}", alt, curve["x"], curve["y"], lines, size=CHART_SIZE)
    return curve["title"], picture, curve.get("note", "")


def _table(table: Mapping[str, Any]) -> Cells:
    kinds, count = list(table["columns"].values()), len(table["rows"])
    return Cells(
        title=table["title"] + (f", the first {MOST_ROWS} of {count} rows" if count > MOST_ROWS else ""),
        headings=list(table["columns"]),
        numeric=[kind != "text" for kind in kinds],
        rows=[
            [WRITTEN[kind](cell) if cell is not None else "–" for kind, cell in zip(kinds, row, strict=True)]
            for row in table["rows"][:MOST_ROWS]
        ],
    )


def _matrix(matrix: Mapping[str, Any]) -> ColouredCells:
    rows = []
    for place, (name, counts) in enumerate(zip(matrix["rows"], matrix["counts"], strict=True)):
        total = max(sum(counts), 1)
        cells = []
        for column, count in enumerate(counts):
            same = column == place and name == matrix["columns"][column]
            text = str(round(100 * count / total)) if matrix["shares"] else str(count)
            colour = "hit" if same else "zero" if text == "0" else ""
            cells.append((text, round(100 * count / total, 1), colour))
        rows.append((name, cells))
    return ColouredCells(title=matrix["title"], columns=matrix["columns"], rows=rows)
