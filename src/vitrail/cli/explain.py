"""``vitrail explain``: what a model looks at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from vitrail.cli.display import Output, OutputOptions, display
from vitrail.cli.options import WholeNumber
from vitrail.cli.predict import image_paths
from vitrail.core.errors import ConfigError
from vitrail.runs.explain import explain_run
from vitrail.runs.run import Run


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
    named with the reason. Images that cannot be decoded are listed on standard error and skipped.

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
        explanation, paths, broken = explain_run(
            Run.open(run),
            list(image_paths(sources)),
            folder=out,
            format=format,
            batch_size=batch_size,
            progress=shown.progress,
        )
        for image in broken:
            print(f"vitrail: skipped: {image.reason}", file=sys.stderr)
        for name, reason in explanation.skipped.items():
            shown.say(f"No {name.replace('_', ' ')}: {reason}")
        shown.say(f"Written: {', '.join(map(str, paths))}")
        shown.result(
            {
                "files": [str(path) for path in paths],
                "skipped": explanation.skipped,
                "skipped_images": [{"image": str(image.path), "reason": image.reason} for image in broken],
            }
        )
