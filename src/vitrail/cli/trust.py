"""``vitrail trust``: how far a model's answers can be trusted."""

from __future__ import annotations

from pathlib import Path

from vitrail.cli.display import Output, OutputOptions, display
from vitrail.cli.options import configured
from vitrail.runs.run import Run
from vitrail.runs.trust import TrustConfig, fit_trust
from vitrail.runs.trust_words import trust_lines


@configured(
    TrustConfig(),
    groups={
        "Options": ("coverage", "sets", "use_temperature"),
        "More options: computation": ("num_images", "batch_size", "seed"),
    },
)
def trust(config: TrustConfig, run: Path, /, *, output: OutputOptions = Output()) -> None:
    """Fit how far a run's answers can be trusted, on its validation images.

    A *temperature* makes probabilities true: of answers with 80 %, four in five are right. *Sets of classes* hold the
    right class in a stated share of images. An *outlier score* is high for images unlike those of the training. All are
    checked on the test images, or on validation images in turns where there are none. They are kept in the run as
    `trust.json`, `trust.safetensors` and `figures/trust.png`, for `predict --coverage`, `predict --outlier-score` and
    `drift`. Tasks that give an image no class have the outlier score alone. After a new training everything has to be
    fitted again.

    **Examples**

    ```sh
    vitrail trust runs/photos
    vitrail trust runs/photos --coverage 0.95 --sets raps
    vitrail trust runs/photos --use-temperature && vitrail export runs/photos
    vitrail predict runs/photos cat.jpg --coverage 0.95 --outlier-score
    ```

    Args:
        run: Run folder.
    """
    with display(output) as shown:
        opened = Run.open(run)
        found = fit_trust(opened, config, progress=shown.progress)
        for line in trust_lines(opened):
            shown.say(line)
        picture = f", {opened.figures.name}/trust.png" if found.classes and found.classes.after else ""
        shown.say(f"Written: {opened.trust}, {opened.trust_arrays.name}{picture}")
        shown.result(found.model_dump(mode="json"))
