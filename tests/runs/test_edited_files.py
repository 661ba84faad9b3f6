"""Files of a run that somebody edited: whatever a field holds, verbs work or say in a line what is wrong where.

``EVERY=1 pytest tests/runs/test_edited_files.py`` tries all of some 5,000 edits, which takes minutes.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vitrail.bench import latest_results
from vitrail.core.errors import RunError, VitrailError
from vitrail.evaluation import robustness_table
from vitrail.face import TrainedRun
from vitrail.figures.robustness import robustness_figures
from vitrail.report import write_report
from vitrail.report.recommendation import Limits, recommend
from vitrail.report.rows import run_html
from vitrail.runs.file_results import read_file_results
from vitrail.runs.quantize import load_plan
from vitrail.runs.robustness import read_robustness, robustness_by_recipe
from vitrail.runs.run import Run
from vitrail.runs.schema import read_evaluation, read_record
from vitrail.runs.whole_way import summary
from vitrail.training.recorder import best_row, read_metrics

KEPT = Path(__file__).with_name("run-0.1.0")
STEP = 1 if os.environ.get("EVERY") else 13
"""Distance of the edits that are tried."""

FEW = 40
"""Distance of the accepted edits with which reports and tables are made."""

POINT = {"x": 0, "top1": 0.5, "top1_low": 0.4, "top1_high": 0.6, "consistency": 1.0}
CURVE = {"group": "translation", "name": "horizontal shift", "unit": "pixels", "points": [POINT, POINT | {"x": 4}]}
ROBUSTNESS = {
    "clean_top1": 0.5,
    "num_images": 10,
    "skipped": {"resolution 0.5": "too small"},
    "diagonal_consistency": 0.5,
    "summary": {"translation": {"top1": 0.5, "consistency": 0.5}},
    "curves": [CURVE],
}

ENERGY = {"source": "rapl", "energy_mj": 2.5, "ci95_mj": [2.0, 3.0], "windows": [[1.0, 2.0, 100, 0.0, 1.0]]}

VALUES: dict[str, Any] = {
    "null": None,
    "text": "text",
    "list": [],
    "list of null": [None],
    "table": {},
    "negative": -1,
    "huge": 1e308,
    "400 digits": 10**399,
    "true": True,
    "nan": float("nan"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of version 0.1.0 with every file that is read, each with few entries of a kind."""
    run = Run(shutil.copytree(KEPT, tmp_path_factory.mktemp("edited") / "run"))
    evaluation, plan = json.loads(run.evaluation.read_text()), json.loads(run.quantization.read_text())
    for pictures in (evaluation["examples"], evaluation["data"]["samples"]):
        pictures[:] = [one | {"jpeg_base64": "AAAA"} for one in pictures[:2]]
    for name in ("smoothing", "rounded", "counts"):
        plan[name] = dict(list(plan[name].items())[:1])
    plan["operands"] = plan["operands"][:2]
    run.evaluation.write_text(json.dumps(evaluation | {"stale": {"litert-float": "made from other weights"}}))
    run.quantization.write_text(json.dumps(plan))
    run.robustness.write_text(json.dumps(ROBUSTNESS))
    run.update(version=1, stages={"Train": 1.0})
    first, *rest = run.bench_rows.read_text().splitlines()
    row = json.loads(first) | {"energy": ENERGY, "load_ms": None}
    run.bench_rows.write_text("\n".join([json.dumps(row), *rest, ""]))
    return run


def recommended(run: Run) -> None:
    for limits in (Limits(), Limits(max_size_mb=1, max_latency_ms=1e9)):
        recommend(read_file_results([run]), limits)


def drawn_robustness(run: Run) -> None:
    grouped = robustness_by_recipe([run])
    robustness_table(grouped, "top1")
    robustness_table(grouped, "consistency")
    robustness_figures(grouped)


READERS: dict[str, Callable[[Run], Any]] = {
    "run.json": Run.read,
    "evaluation.json": read_evaluation,
    "robustness.json": read_robustness,
    "quantization.json": load_plan,
    "model.onnx.json": lambda run: read_record(run, run.onnx("float")),
    "bench.jsonl": lambda run: latest_results(run.bench_rows),
    "metrics.csv": lambda run: read_metrics(run.metrics),
}
"""File -> what checks it."""

USERS: dict[str, Callable[[Run], Any]] = {
    "report": write_report,
    "html": run_html,
    "repr": lambda run: repr(TrainedRun(run.folder)),
    "recommend": recommended,
    "summary": summary,
    "robustness": drawn_robustness,
    "best": lambda run: best_row(read_metrics(run.metrics), run.read().kind.scores[0]),
}
"""What computes with contents that were found to be sound."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every entry, but only the first two of a list."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def edits(text: str, name: str) -> Iterator[tuple[str, str]]:
    """What was done, and the text after that."""
    if name == "metrics.csv":
        yield from edited_cells([line.split(",") for line in text.splitlines()])
        return
    first, *rest = text.splitlines() if name == "bench.jsonl" else [text]
    value = json.loads(first)
    for place in places(value):
        for what, new in [("deleted", None), *VALUES.items()]:
            edited = inner = copy.deepcopy(value)
            for key in place[:-1]:
                inner = inner[key]
            if what == "deleted":
                del inner[place[-1]]
            else:
                inner[place[-1]] = new
            yield f"{'.'.join(map(str, place))} {what}", "\n".join([json.dumps(edited), *rest, ""])
    for whole in ("[]", "null", "3", '"x"', "{}", ""):
        yield f"whole file {whole}", "\n".join([whole, *rest, ""])


def edited_cells(cells: list[list[str]]) -> Iterator[tuple[str, str]]:
    for column in range(len(cells[0])):
        for new in ("text", "", "-1", "1e999", "1e308", "nan", '"', "\0", "9" * 140_000):
            for row in (0, 1):
                edited = copy.deepcopy(cells)
                edited[row][column] = new
                yield f"line {row + 1}, column {column}, {new[:9]!r}", "\n".join(map(",".join, edited))
        yield f"no column {column}", "\n".join(",".join(row[:column] + row[column + 1 :]) for row in cells)
    for whole in ("", "epoch\n", "\n\n", "epoch,epoch\n1,2\n", "epoch\n1.5,2\n"):
        yield f"whole file {whole!r}", whole


def complaint(function: Callable[[Run], Any], run: Run) -> Exception | None:
    try:
        function(run)
    except Exception as error:  # noqa: BLE001 (any of them is the fault that is looked for)
        return error
    return None


def is_told(error: Exception | None) -> bool:
    """Whether people get one line."""
    return error is None or (isinstance(error, VitrailError) and "\n" not in str(error))


@pytest.mark.parametrize("name", READERS)
def test_no_edit_of_a_file_breaks_a_reader(run: Run, name: str) -> None:
    path, crashes, accepted = run.folder / name, [], 0
    text = path.read_text()
    try:
        for what, after in itertools.islice(edits(text, name), 0, None, STEP):
            path.write_text(after)
            error = complaint(READERS[name], run)
            accepted += error is None
            others = [complaint(user, run) for user in USERS.values()] if error is None and accepted % FEW == 0 else []
            crashes += [f"{what}: {type(one).__name__}: {one}" for one in (error, *others) if not is_told(one)]
            if error is not None and name not in str(error):
                crashes.append(f"{what}: {error} (which file?)")
    finally:
        path.write_text(text)
    assert not crashes


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        (
            "evaluation.json",
            ("split",),
            None,
            r"json: 'split' is missing; make it again with: vitrail evaluate",
        ),
        (
            "evaluation.json",
            ("reports", "onnx-float", "top1"),
            "x",
            r"'reports\.onnx-float\.top1' is 'x', not a nu",
        ),
        ("evaluation.json", ("reports", "torch-float", "confusion"), [[1]], r"'reports\.torch-float' .*10 rows of 10"),
        ("evaluation.json", ("data", "counts", "train"), [1, 2], r"'data\.counts\.train' has 2 counts for 10 classes"),
        ("run.json", ("preprocessing", "mean"), "x", r"run\.json: 'preprocessing\.mean' is 'x': .*restore the file"),
        ("run.json", ("trained",), [], r"run\.json: 'trained' is \[\]: "),
        (
            "robustness.json",
            ("summary", "translation", "top1"),
            7,
            r"'summary\.translation\.top1' is 7: .*--robust",
        ),
        ("model.onnx.json", ("record",), "x", r"model\.onnx\.json: 'record' is 'x': .*vitrail export"),
        ("quantization.json", ("operands", 0, "name"), 3, r"'operands\.0\.name' is 3: .*vitrail quantize"),
    ],
)
def test_an_error_names_file_field_value_and_remedy(
    run: Run, name: str, place: tuple[Any, ...], value: Any, message: str
) -> None:
    path = run.folder / name
    text = path.read_text()
    edited = inner = json.loads(text)
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(edited))
    try:
        with pytest.raises(RunError, match=message):
            write_report(run)
    finally:
        path.write_text(text)


def test_fields_of_later_versions_are_kept_and_passed_over(run: Run) -> None:
    texts = {run.folder / name: (run.folder / name).read_text() for name in READERS if name.endswith(".json")}
    try:
        for path, text in texts.items():
            values = json.loads(text) | {"later": {"a": [1]}}
            if path == run.description:
                values["preprocessing"]["gamma"] = values["data"]["colour"] = 2.2
            if path == run.evaluation:
                values["reports"]["torch-float"]["curve"] = [1, 2]
                values["reports"]["torch-float"]["per_class"][0]["remark"] = "rare"
            path.write_text(json.dumps(values))
        for user in USERS.values():
            user(run)
        load_plan(run)
    finally:
        for path, text in texts.items():
            path.write_text(text)


def test_a_later_version_that_cannot_be_read_says_so(run: Run) -> None:
    text = run.evaluation.read_text()
    run.evaluation.write_text(json.dumps({"version": 9, "parts": []}))
    try:
        with pytest.raises(RunError, match=r"'reports' is missing; a later Vitrail wrote it \(version 9\); update"):
            read_evaluation(run)
    finally:
        run.evaluation.write_text(text)


def test_a_nan_of_an_earlier_version_counts_as_unknown(run: Run) -> None:
    text = run.evaluation.read_text()
    values = json.loads(text)
    values["reports"]["onnx-int8"]["top1"] = values["reports"]["onnx-int8"]["loss"] = float("nan")
    run.evaluation.write_text(json.dumps(values))
    try:
        found = {one.result.name: one.note for one in read_file_results([run])}
        assert found["onnxruntime int8"].startswith("this file was not evaluated")
        assert write_report(run).exists()
    finally:
        run.evaluation.write_text(text)
