"""``vitrail drift``: do new images differ from those that a model was validated on?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitrail.cli.display import Output, OutputOptions, display
from vitrail.cli.options import configured
from vitrail.cli.predict import image_paths
from vitrail.core.errors import ConfigError
from vitrail.report.drift_page import write_drift
from vitrail.report.soundness_page import require_folder
from vitrail.runs.drift import DriftConfig, measure_drift
from vitrail.runs.run import Run

MOST_SHOWN = 5
"""Images that the terminal names."""


@configured(DriftConfig(), groups={"Options": ("strict",), "More options: computation": ("batch_size", "seed")})
def drift(
    config: DriftConfig,
    run: Path,
    /,
    *sources: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path = Path("drift"),
    output: OutputOptions = Output(),
) -> None:
    """Tell whether new images differ from those that a model was validated on, by more than chance.

    `vitrail trust` keeps statistics of the validation images in the run; the images themselves are not needed any more.
    Compared are the features of the model, its answers and their confidence, outlier scores, light, contrast,
    sharpness, size and form. Images like those of the validation are called different in at most one of 20 draws.
    Written are `drift.html` with the most unusual images, `drift.csv` with one row an image, and `drift.json`.

    **Examples**

    ```sh
    vitrail trust runs/photos && vitrail drift runs/photos new_photos/
    vitrail drift runs/photos camera/2026-11/ --out drift/november --strict
    find . -name '*.png' | vitrail drift runs/photos - --json
    ```

    Args:
        run: Run folder.
        sources: Image files, folders, or `-` for a list of paths on standard input.
        out: Folder to write to.
    """
    if not sources:
        raise ConfigError("no images given; name files or folders, or - to read paths from standard input")
    with display(output) as shown:
        require_folder(out)
        opened = Run.open(run)
        found = measure_drift(opened, list(image_paths(sources)), config, progress=shown.progress)
        files = write_drift(found, opened, out)
        for line in (found.verdict, *found.sentences):
            shown.say(line)
        unusual = [image for image in found.images if image.unusual]
        for image in unusual[:MOST_SHOWN]:
            answer = f", answered {image.answer}" if image.answer else ""
            shown.say(f"  {image.file} (score {image.outlier_score:.3g}{answer})")
        if len(unusual) > MOST_SHOWN:
            shown.say(f"  and {len(unusual) - MOST_SHOWN} more")
        for reason in found.skipped:
            shown.say(f"Left out: {reason}")
        shown.say(f"Written: {', '.join(map(str, files))}")
        shown.result(found.to_dict() | {"files": [str(path) for path in files]})
    if config.strict:
        found.require_none()
