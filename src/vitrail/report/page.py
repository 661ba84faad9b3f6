"""The HTML report of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitrail.core.errors import LockedError
from vitrail.core.files import write_text
from vitrail.core.paths import typed_path
from vitrail.report.contents import (
    Accuracy,
    Speed,
    counted,
    read_accuracy,
    read_curves,
    read_exports,
    read_quantization,
    read_speed,
)
from vitrail.report.embedded import read_explanation, read_robustness_section
from vitrail.report.first_screen import first_screen
from vitrail.report.stained_glass import window
from vitrail.report.thresholds import SCRIPT, read_slider, script_source
from vitrail.report.trust_section import read_trust_section
from vitrail.report.written import difference, megabytes, number, percent, points, score
from vitrail.runs.description import Description
from vitrail.runs.run import Run
from vitrail.runs.schema import read_evaluation
from vitrail.runs.telling import majority


def write_report(run: Run) -> Path:
    """Write ``run.report_page``: one HTML page that loads nothing from the network or from disk.

    Its only script moves the slider of the least confidence; the page's security policy names its hash.

    A section without its artefact names the verb that makes it. While another process trains or measures, the page
    shows what is there so far. All text of the user (class names, paths, image names) is escaped.

    Returns:
        the path of the page.

    Raises:
        RunError: the folder does not describe a run.
        VitrailError: an artefact is damaged, or the page cannot be written.
    """
    try:
        with run.writing():  # which deletes what killed processes have left
            return _write(run)
    except LockedError:
        return _write(run)


def _write(run: Run) -> Path:
    description = run.read()
    evaluation = read_evaluation(run)
    accuracy = read_accuracy(run, evaluation)
    speed = read_speed(run, accuracy)
    exports = read_exports(run)
    template = _environment().get_template("report.html.j2")
    html = template.render(
        name=run.folder.name,
        folder=typed_path(run.folder),
        evaluated=evaluation is not None,
        can_explain=description.kind.task.takes_images,
        can_be_robust=description.kind.task.per_image,
        run=description,
        window=window(description.data.fingerprint or run.folder.name),
        data=_data(description, evaluation),
        curves=read_curves(run),
        accuracy=accuracy,
        examples=[e | {"wrong": e.get("label") != e.get("predicted")} for e in (evaluation or {}).get("examples", [])],
        exports=exports,
        quantization=read_quantization(run),
        speed=speed,
        explanation=read_explanation(run),
        robustness=read_robustness_section(run),
        trust=read_trust_section(run),
        first=first_screen(run),
        figures=key_figures(accuracy, speed, exports, run),
        place=speed.place if speed else None,
        commands=commands(run, description),
        sliders=[read_slider(one) for one in ((evaluation or {}).get("findings") or {}).get("thresholds", ())],
        script=SCRIPT,
        script_source=Markup(script_source()),
    )
    write_text(run.report_page, html)
    return run.report_page


def _environment() -> Environment:
    """The templates, with the ways in which they write numbers."""
    environment = Environment(
        loader=PackageLoader("vitrail.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent,
        points=points,
        score=score,
        difference=difference,
        number=number,
        megabytes=megabytes,
        counted=counted,
    )
    return environment


def key_figures(
    accuracy: Accuracy | None, speed: Speed | None, exports: list[dict[str, Any]], run: Run
) -> list[tuple[str, str, str]]:
    """(figure, meaning, comparison) for the head of the page."""
    figures = []
    if accuracy:
        main, first = accuracy.scores[0], accuracy.rows[0]
        title = main["title"]
        figures.append((score(first["value"], main), f"{title}, float", f"on {accuracy.first['num_images']} images"))
        if (most := majority(accuracy.first)) is not None:
            figures[0] = (*figures[0][:2], f"{figures[0][2]}; always “{most[0]}” reaches {percent(most[1])}")
        elif accuracy.findings.trivial:
            reached = f"{accuracy.findings.trivial} reaches {accuracy.findings.trivial_scores[0]}"
            figures[0] = (*figures[0][:2], f"{figures[0][2]}; {reached}")
        for row in accuracy.rows:
            if row["key"] == "onnx-int8":
                change = f"{difference(row['change'], main)} against float"
                figures.append((score(row["value"], main), f"{title}, int8", change))
    measured = [row for row in speed.rows if row["ratio"]] if speed else []
    if measured and speed:
        best = min(measured, key=lambda row: row["ratio"])
        result = best["result"]
        milliseconds = result.cpu_ms_median if speed.contended else result.latency_ms_median
        faster = f"{1 / best['ratio']:.1f}× as fast as {speed.baseline}"
        figures.append((f"{number(milliseconds)} ms", f"an image, {best['name']}", faster))
    current = [record for record in exports if not record["stale"]]
    smallest = min(current, key=lambda record: record["size_bytes"], default=None)
    if smallest and run.weights.exists():
        share = smallest["size_bytes"] / max(run.weights.stat().st_size, 1)
        figures.append(
            (megabytes(smallest["size_bytes"]), f"on disk, {smallest['variant']}", f"{share:.2f}× the weights")
        )
    return figures


def commands(run: Run, description: Description) -> list[str]:
    """Commands that make this page again: the training command as given, then the later verbs."""
    given = _words(description.command) or ["vitrail", "train", "--run", str(run.folder)]
    first = shlex.join([Path(given[0]).name, *given[1:]])
    folder = typed_path(run.folder)
    whole_way = len(given) > 1 and given[1] in ("demo", "run")
    verbs = () if whole_way else ("quantize", "export", "evaluate", "bench", "report")
    return [first, *(f"vitrail {verb} {folder}" for verb in verbs)]


def _words(command: str) -> list[str]:
    """The words of a command line; none where a quotation is not closed."""
    try:
        return shlex.split(command)
    except ValueError:
        return []


def _data(description: Description, evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """Facts of the data from the training, updated by those of the evaluation."""
    trained = description.data
    totals = {"train": trained.num_train, "val": trained.num_val, "test": trained.num_test}
    known: dict[str, Any] = {
        "source": trained.path,
        "fingerprint": trained.fingerprint,
        "classes": list(description.classes),
        "skipped": list(trained.skipped),
        "remarks": list(trained.remarks),
        "counts": None,
        "samples": [],
        "totals": {part: count for part, count in totals.items() if count},
    }
    known |= (evaluation or {}).get("data", {})
    if known["counts"]:
        known["totals"] = {part: sum(counts) for part, counts in known["counts"].items()}
    return known
