"""``vitrail predict``: what a model says to images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from vitrail.cli.display import Display, Output, OutputOptions, display, number, percent
from vitrail.cli.options import WholeNumber
from vitrail.cli.words import STANDARD_INPUT
from vitrail.core.errors import ConfigError
from vitrail.evaluation import AnswerTrust, Predictions
from vitrail.runs.load import found_confidence, task_of
from vitrail.runs.predict import predict_run, sample_run
from vitrail.runs.run import Run

CELLS: dict[str, Callable[[Any], object]] = {"text": str, "count": int, "percent": percent, "number": number}
"""How a value is shown to people, by the kind of its column."""


def predict(
    run: Path,
    /,
    *sources: Annotated[str, Parameter(allow_leading_hyphen=True)],
    top_k: Annotated[WholeNumber | None, Parameter(name=("--top-k", "--max-detections"))] = None,
    min_confidence: float | None = None,
    coverage: float | None = None,
    outlier_score: Annotated[bool, Parameter(negative=())] = False,
    csv: Annotated[bool, Parameter(negative=())] = False,
    batch_size: WholeNumber = 32,
    out: Path | None = None,
    count: WholeNumber = 64,
    seed: WholeNumber = 0,
    output: OutputOptions = Output(),
) -> None:
    """Apply a model to files, folders, or paths from standard input.

    Folders are searched for images at any depth; `-` reads one path a line from standard input. A classifier gives each
    image its most probable class, a multi-label one all classes from their least probability on. Other tasks give
    boxes, masks, keypoints or scores, and `--out` draws them. A model of aesthetics sorts the images by its score, and
    writes a contact sheet of the best and the worst to `--out`. Images that cannot be decoded are listed on standard
    error and skipped, and so are files of folders that look like images and are not read. A generator takes no images:
    it writes `--count` pictures, a page of them, and a page of interpolations to `--out`.

    **Examples**

    ```sh
    vitrail predict runs/photos cat.jpg holidays/
    find . -name '*.png' | vitrail predict runs/photos - --csv > classes.csv
    vitrail predict runs/photos cat.jpg --top-k 3 --json
    vitrail predict runs/photos cat.jpg --coverage 0.95 --outlier-score
    vitrail predict runs/cells pictures/ --out drawn/ --min-confidence 0.3 --max-detections 20
    vitrail predict runs/generator --count 100 --seed 7 --out made/
    ```

    Args:
        run: Run folder.
        sources: Image files, folders, or `-` for a list of paths on standard input.
        top_k: Largest number of classes, or of objects, in an answer. Default: 1 class (of a multi-label model all), or
            100 objects (`--option.max-objects` of the training).
        min_confidence: Least probability of an object, or of a class of a multi-label model, in the list and in
            pictures. Default: the one with the best F1 on the validation images (of each class its own), which
            `vitrail evaluate` finds; 0.5 before.
        coverage: Share of images whose set of classes shall hold the right one, such as 0.9; the set is shown beside
            each answer. It takes a run of `vitrail trust`. Default: no sets.
        outlier_score: Show how unlike the training images each image is, and whether that is unusual. It takes a run
            of `vitrail trust`.
        csv: Print CSV: the image, then the columns of the table.
        out: Folder for a picture of every answer. Default: none; for a generator `figures/` of the run.
        count: Number of pictures that a generator makes.
        seed: Random seed of the pictures that a generator makes.
        batch_size: Number of images at once; changes speed, never the result.
    """
    if csv and output.json:
        raise ConfigError("--csv and --json exclude each other; choose one")
    with display(output) as shown:
        opened = Run.open(run)
        if not task_of(opened).task.takes_images:
            _refuse_trust(wanted=coverage is not None or outlier_score)
            _make(shown, opened, out or opened.figures, sources, count, seed)
            return
        if not sources:
            raise ConfigError("no images given; name files or folders, or - to read paths from standard input")
        predictions = predict_run(
            opened,
            list(image_paths(sources)),
            top_k=top_k,
            min_confidence=min_confidence,
            coverage=coverage,
            outlier_score=outlier_score,
            batch_size=batch_size,
            pictures=out,
            progress=shown.progress and not csv,
        )
        _warn(opened, predictions, given=min_confidence is not None)
        _show(shown, predictions, as_csv=csv)


def _refuse_trust(*, wanted: bool) -> None:
    if wanted:
        raise ConfigError("a generator answers no images; leave out --coverage and --outlier-score")


def _make(shown: Display, run: Run, out: Path, sources: Sequence[str], count: int, seed: int) -> None:
    if sources:
        raise ConfigError(f"a generator looks at no images; leave out {sources[0]}, and say how many with --count")
    files = sample_run(run, out, count=count, seed=seed)
    shown.say(f"{count} pictures, and pages of them: {files[0]}, {files[1]}")
    shown.result({"files": [str(path) for path in files]})


def _warn(run: Run, predictions: Predictions, *, given: bool) -> None:
    """Lines on standard error: images that have no answer, or perhaps a wrong one, and what answers leave out."""
    for skipped in predictions.skipped:
        print(f"vitrail: skipped: {skipped.reason}", file=sys.stderr)
    for damaged in predictions.damaged:
        print(f"vitrail: warning: {damaged.reason}; the answer may be wrong", file=sys.stderr)
    if predictions.answers.task.min_confidence is not None:
        print(f"vitrail: {_bound_text(run, predictions, given=given)}", file=sys.stderr)


def _bound_text(run: Run, predictions: Predictions, *, given: bool) -> str:
    """What was left out, and why."""
    answers, task = predictions.answers, predictions.answers.task
    empty = [one for one in predictions.images if not answers.rows(one.answer)]
    what = task.bounds or "object"
    bound = f"{task.min_confidence:.2g}"
    if task.min_confidences:
        bound = f"their own bound ({min(task.min_confidences):.2g} to {max(task.min_confidences):.2g})"
    text = f"{'classes' if what == 'class' else f'{what}s'} of a probability below {bound} are left out"
    if not given:
        found = found_confidence(run)
        why = "the best F1 on the validation images" if found else f"vitrail evaluate {run.folder} finds the best one"
        text += f" ({why}; --min-confidence sets another)"
    if empty:
        text += f"; {len(empty)} of {len(predictions.images)} images have no {what}, the first {empty[0].path}"
    return text


def image_paths(sources: Sequence[str]) -> Iterator[Path]:
    """The sources as paths; ``-`` stands for the lines of standard input."""
    for source in sources:
        if source == STANDARD_INPUT:
            yield from (Path(line.rstrip("\r\n")) for line in sys.stdin if line.strip())
        else:
            yield Path(source)


def _trust_columns(predictions: Predictions) -> dict[str, tuple[str, Callable[[Any], Any]]]:
    """Heading -> kind, and the cell of what is known of an answer's trust."""
    first = predictions.images[0].trust if predictions.images else None
    columns: dict[str, tuple[str, Callable[[Any], Any]]] = {}
    if first is not None and first.classes is not None:
        columns["set"] = "text", lambda trust: "; ".join(trust.classes)
    if first is not None and first.outlier_score is not None:
        columns["outlier score"] = "number", lambda trust: trust.outlier_score
        columns["unusual"] = "text", lambda trust: "yes" if trust.unusual else "no"
    return columns


def _trust_values(trust: AnswerTrust | None) -> dict[str, Any]:
    names = {"set": "classes", "outlier_score": "outlier_score", "unusual": "unusual"}
    values = {name: getattr(trust, field, None) for name, field in names.items()}
    return {name: value for name, value in values.items() if value is not None}


def _show(shown: Display, predictions: Predictions, *, as_csv: bool) -> None:
    answers = predictions.answers
    more = _trust_columns(predictions)
    rows = [
        (str(image.path), *row, *(cell(image.trust) for _, cell in more.values()))
        for image in predictions.images
        for row in answers.rows(image.answer)
    ]
    header = ("image", *answers.columns, *more)
    if as_csv:
        shown.csv(header, rows)
    else:
        title = f"{len(predictions.images)} image{'s' if len(predictions.images) > 1 else ''}"
        cells: list[Callable[[Any], object]] = [str, *(CELLS[kind] for kind in answers.columns.values())]
        cells += [CELLS[kind] for kind, _ in more.values()]
        shown.table(title, header, [[cell(v) for cell, v in zip(cells, row, strict=True)] for row in rows])
    shown.result(
        {
            "predictions": [
                {"image": str(image.path), **answers.to_dict(image.answer), **_trust_values(image.trust)}
                for image in predictions.images
            ],
            "skipped": [{"image": str(image.path), "reason": image.reason} for image in predictions.skipped],
            "damaged": [{"image": str(image.path), "reason": image.reason} for image in predictions.damaged],
        }
    )
