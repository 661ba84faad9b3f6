"""``vitrail explain``: what a model looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from cyclopts import Parameter

from vitrail.cli.display import Output, OutputOptions, display
from vitrail.cli.options import WholeNumber
from vitrail.cli.predict import image_paths
from vitrail.core.errors import ConfigError
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import MAX_PIXELS, decode_image, find_images, fit_image
from vitrail.explain import explain_images, write_explanation
from vitrail.tasks import load_task


def explain(
    run: Path,
    /,
    *sources: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path | None = None,
    format: Literal["png", "svg"] = "png",
    batch_size: WholeNumber = 8,
    output: OutputOptions = Output(),
) -> None:
    """Show what a model looks at, and what its features are like.

    Attention overlays (rollout, if all tokens attend to all), the attention distance of each head, feature collapse
    over depth, principal components of the first filters, similarity of position embeddings, effective receptive
    fields: each as a picture, and all numbers in `arrays.npz`. Pictures that the model's family does not have are
    named with the reason.

    **Examples**

    ```sh
    vitrail explain runs/photos cat.jpg dog.jpg
    vitrail explain runs/photos holidays/ --out attention/ --format svg
    ```

    Args:
        run: Run folder.
        sources: Image files, folders, or `-` for a list of paths on standard input.
        out: Folder for pictures and arrays. Default: `explanation/` in the run.
        format: File format of the pictures.
        batch_size: Number of images at once; memory grows with it.
    """
    if not sources:
        raise ConfigError("no images given; name files or folders, or - to read paths from standard input")
    with display(output) as shown:
        opened = Run.open(run)
        task = load_task(opened)
        if task.input_shape is not None:
            raise ConfigError(f"a model of the task '{task.name}' looks at no images; there is nothing to explain")
        preprocessing = Preprocessing.from_dict(opened.read()["preprocessing"])
        files = [file for path in image_paths(sources) for file in (find_images(path) if path.is_dir() else [path])]
        if not files:
            raise ConfigError("there are no images in what was named; name image files, or folders with some")
        images = torch.stack([fit_image(decode_image(file, MAX_PIXELS), preprocessing) for file in files])
        explanation = explain_images(task, images, preprocessing, batch_size=batch_size)
        paths = write_explanation(explanation, out or opened.explanation, format)
        for name, reason in explanation.skipped.items():
            shown.say(f"No {name.replace('_', ' ')}: {reason}")
        shown.say(f"Written: {', '.join(map(str, paths))}")
        shown.result({"files": [str(path) for path in paths], "skipped": explanation.skipped})
