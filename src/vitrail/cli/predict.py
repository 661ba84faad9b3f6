"""``vitrail predict``: the classes of images."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitrail.cli.display import Display, Output, OutputOptions, display, percent
from vitrail.cli.options import WholeNumber
from vitrail.core.errors import ConfigError, DataError, RunError
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.evaluation import Predictions, predict_images
from vitrail.tasks import ClassificationTask, load_task

STANDARD_INPUT = "-"

HEADER = ("image", "rank", "class", "probability")


def predict(
    run: Path,
    /,
    *sources: Annotated[str, Parameter(allow_leading_hyphen=True)],
    top_k: WholeNumber = 1,
    csv: Annotated[bool, Parameter(negative=())] = False,
    batch_size: WholeNumber = 32,
    output: OutputOptions = Output(),
) -> None:
    """Classify files, folders, or paths from standard input.

    Folders are searched for images at any depth; `-` reads one path a line from standard input. Each image gets its
    most probable classes. Images that cannot be decoded are listed on standard error, and the others go on.

    **Examples**

    ```sh
    vitrail predict runs/photos cat.jpg holidays/
    find . -name '*.png' | vitrail predict runs/photos - --csv > classes.csv
    vitrail predict runs/photos cat.jpg --top-k 3 --json
    ```

    Args:
        run: Run folder.
        sources: Image files, folders, or `-` for a list of paths on standard input.
        top_k: How many classes an image gets.
        csv: Print CSV with the columns image, rank, class, probability.
        batch_size: Images at once; changes speed, never the result.
    """
    if csv and output.json:
        raise ConfigError("--csv and --json exclude each other; choose one")
    if not sources:
        raise ConfigError("no images given; name files or folders, or - to read paths from standard input")
    with display(output) as shown:
        opened = Run.open(run)
        task = load_task(opened)
        if not isinstance(task, ClassificationTask):
            raise RunError(f"run {run} has no classes to predict; it was trained for {type(task).__name__}")
        predictions = predict_images(
            task,
            image_paths(sources),
            Preprocessing.from_dict(opened.read()["preprocessing"]),
            top_k=top_k,
            batch_size=batch_size,
            progress=shown.progress and not csv,
        )
        if not predictions.images:
            first, count = predictions.skipped[0].reason, len(predictions.skipped)
            raise DataError(first if count == 1 else f"none of the {count} images could be decoded; the first: {first}")
        for skipped in predictions.skipped:
            print(f"vitrail: skipped: {skipped.reason}", file=sys.stderr)
        _show(shown, predictions, as_csv=csv)


def image_paths(sources: Sequence[str]) -> Iterator[Path]:
    """The sources as paths; ``-`` stands for the lines of standard input."""
    for source in sources:
        if source == STANDARD_INPUT:
            yield from (Path(line.rstrip("\r\n")) for line in sys.stdin if line.strip())
        elif source.startswith("-"):
            raise ConfigError(f"unknown option {source}; 'vitrail predict --help' lists them (a file: ./{source})")
        else:
            yield Path(source)


def _show(shown: Display, predictions: Predictions, *, as_csv: bool) -> None:
    rows = [
        (str(image.path), rank, score.label, score.probability)
        for image in predictions.images
        for rank, score in enumerate(image.scores, start=1)
    ]
    if as_csv:
        shown.csv(HEADER, rows)
    else:
        title = f"{len(predictions.images)} image{'s' if len(predictions.images) > 1 else ''}"
        shown.table(title, HEADER, [(*row[:3], percent(row[3])) for row in rows])
    shown.result(
        {
            "predictions": [
                {"image": str(image.path), "classes": [asdict(score) for score in image.scores]}
                for image in predictions.images
            ],
            "skipped": [{"image": str(image.path), "reason": image.reason} for image in predictions.skipped],
        }
    )
