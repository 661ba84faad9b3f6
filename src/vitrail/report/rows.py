"""Lists of results that print as a text table, and as HTML in a notebook."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from markupsafe import Markup

from vitrail.bench import BenchResult
from vitrail.core.files import read_bytes
from vitrail.data import decode_image
from vitrail.evaluation import Prediction, Predictions
from vitrail.export import ExportRecord
from vitrail.report.first_screen import first_screen
from vitrail.report.probe_page import accuracy_text
from vitrail.report.written import megabytes, number, percent
from vitrail.runs.examples import DRAWN_SIDE, picture
from vitrail.runs.probe_results import ProbeReport, ProbeRow
from vitrail.runs.run import Run
from vitrail.runs.schema import read_evaluation
from vitrail.runs.telling import telling_scores
from vitrail.runtimes import runtime_title
from vitrail.tasks import Answers, Score

Item = TypeVar("Item")

MOST_PICTURES = 16
"""Largest number of answers with pictures in a notebook; the table has all."""

Columns = Mapping[str, Callable[[Any], str]]
"""Heading -> function from an item to its text."""


class Rows(list[Item]):
    """A list of results that prints as a table.

    Attributes:
        columns: heading -> function from an item to its text.
        notes: lines below the table.
    """

    def __init__(self, items: Iterable[Item], columns: Columns, notes: Sequence[str] = ()) -> None:
        super().__init__(items)
        self.columns = columns
        self.notes = tuple(notes)

    def _cells(self) -> list[list[str]]:
        return [[text(item) for text in self.columns.values()] for item in self]

    def __repr__(self) -> str:
        lines = [list(self.columns), *self._cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join(line.rstrip() for line in [*table, *self.notes])

    def _repr_html_(self) -> str:
        return html_table(self.columns, self._cells()) + Markup("").join(
            Markup("<p>{}</p>").format(note) for note in self.notes
        )


def html_table(headings: Iterable[str], lines: Iterable[Iterable[str]]) -> Markup:
    """An HTML table; all text is escaped."""
    head = Markup("").join(Markup("<th>{}</th>").format(heading) for heading in headings)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in line))
        for line in lines
    )
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body)


def score_text(score: Score, value: float | None) -> str:
    """A score; a share is written as a percentage."""
    return percent(value) if score.percent else number(value)


def probe_rows(report: ProbeReport) -> Rows[ProbeRow]:
    """The backbones of a probe, the best first."""
    name, share = report.majority
    columns: Columns = {
        "backbone": lambda row: row.label,
        "linear probe": lambda row: accuracy_text(row.linear),
        "nearest neighbours": lambda row: accuracy_text(row.nearest),
        "validation": lambda row: percent(row.val_top1),
        "ms here": lambda row: number(row.shown_ms) + "*" * row.contended,
        "size": lambda row: megabytes(row.size_bytes),
    }
    disturbed = ("* Other programs disturbed the measurement; this is processor time.",)
    return Rows(
        report.rows,
        columns,
        [
            f"Always '{name}': {percent(share)}",
            *(disturbed if any(row.contended for row in report.rows) else ()),
            *report.notes,
            *report.advice,
        ],
    )


def evaluation_rows(run: Run, evaluation: Mapping[str, Any]) -> Rows[dict[str, Any]]:
    """Reports of ``evaluation.json``, the weights first, each with the ``name`` of its file."""
    reports = [{"name": name} | report for name, report in evaluation["reports"].items()]
    known = [asdict(score) for score in run.read().kind.scores]
    scores = [Score(**values) for values in telling_scores(known, len(reports[0].get("per_class", ())))]
    columns: dict[str, Callable[[Any], str]] = {"file": lambda report: str(report["name"])}
    for one in scores:
        columns[one.title] = lambda report, one=one: score_text(one, report.get(one.name))  # type: ignore[misc]
    columns["same as the weights"] = lambda report: percent(report.get("agreement"))
    split = {"val": "validation"}.get(evaluation["split"], evaluation["split"])
    images = f"{reports[0].get('num_images', 0)} images of the {split} part"
    return Rows(reports, columns, [images, *evaluation.get("stale", {}).values()])


def export_rows(records: Sequence[ExportRecord]) -> Rows[ExportRecord]:
    """Records of exported files."""
    return Rows(
        records,
        {
            "file": lambda record: record.path.name,
            "size": lambda record: megabytes(record.size_bytes),
            "largest error": lambda record: number(record.max_relative_error),
            "same top-1": lambda record: percent(record.top1_agreement),
            "run by": lambda record: record.runtime or "nothing on this machine",
        },
    )


def bench_rows(results: Sequence[BenchResult]) -> Rows[BenchResult]:
    """Measurements; the notes give the reasons of failures."""
    return Rows(
        results,
        {
            "runtime": lambda result: runtime_title(result.runtime),
            "model": lambda result: result.variant,
            "median (ms)": lambda result: number(result.latency_ms_median),
            "p90 (ms)": lambda result: number(result.latency_ms_p90),
            "memory (MB)": lambda result: number(result.peak_memory_mb),
            "of the file (MB)": lambda result: number(result.file_memory_mb),
            "size": lambda result: megabytes(result.size_bytes),
        },
        [f"{result.name}: {result.failure}" for result in results if result.failure],
    )


class PredictionRows(Rows[Prediction]):
    """Answers to images, with pictures in a notebook."""

    def __init__(self, predictions: Predictions) -> None:
        self.answers = answers = predictions.answers
        columns = {"image": lambda one: str(one.path), "answer": lambda one: answer_text(answers, one.answer)}
        super().__init__(predictions.images, columns, [one.reason for one in predictions.skipped])

    def _repr_html_(self) -> str:
        lines = Markup("").join(self._picture(one) for one in self[:MOST_PICTURES])
        return Markup("<div>{}</div>").format(lines) + super()._repr_html_()

    def _picture(self, one: Prediction) -> Markup:
        """The answer drawn over its image; empty if the image is not a file."""
        if not one.path.is_file():
            return Markup("")
        image = decode_image(one.path)
        drawn = self.answers.draw(image, one.answer)
        return Markup('<img alt="{}" src="data:image/jpeg;base64,{}">').format(
            f"{one.path.name}: {answer_text(self.answers, one.answer)}",
            picture(image if drawn is None else drawn, DRAWN_SIDE),
        )


def answer_text(answers: Answers[Any, Any], answer: Any) -> str:
    """An answer as text, e.g. "dog 97.1 %"."""
    texts: dict[str, Callable[[Any], str]] = {"text": str, "percent": percent, "number": number}
    kinds = list(answers.columns.values())  # counts number the rows, which follow each other here
    rows = [
        [texts[kind](cell) for kind, cell in zip(kinds, row, strict=True) if kind in texts]
        for row in answers.rows(answer)
    ]
    return "; ".join(" ".join(row) for row in rows)


def run_html(run: Run) -> Markup:
    """Sentences, key facts, scores and confusion matrix of a run; missing parts are left out."""
    description = run.read()
    facts = {
        "folder": str(run.folder),
        "model": description.model.name,
        "task": description.task,
        "classes": str(len(description.classes) or ""),
        "images": f"{description.data.num_train} for training, {description.data.num_val} for validation",
        "status": description.status,
    }
    html = html_table(("run", ""), [(name, value) for name, value in facts.items() if value])
    html = Markup("").join(Markup("<p>{}</p>").format(line) for line in first_screen(run).lines) + html
    if (evaluation := read_evaluation(run)) is not None:
        html += Markup(evaluation_rows(run, evaluation)._repr_html_())
    if (picture := run.figures / "confusion.png").is_file():
        data = base64.b64encode(read_bytes(picture)).decode("ascii")
        html += Markup('<img alt="confusion matrix" width="480" src="data:image/png;base64,{}">').format(data)
    return html
