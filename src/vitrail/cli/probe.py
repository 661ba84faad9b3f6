"""``vitrail probe``: which backbone to fine-tune on these images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vitrail.cli.display import Display, Output, OutputOptions, display, megabytes, number, number_text, percent
from vitrail.cli.options import configured
from vitrail.core.errors import ConfigError
from vitrail.core.paths import typed_path
from vitrail.report.probe_page import accuracy_text, write_probe_page
from vitrail.runs.probe import ProbeConfig, probe as probe_data
from vitrail.runs.probe_results import ProbeReport
from vitrail.runs.run import Run


@configured(
    ProbeConfig(),
    names={"data.path": "data", "data.seed": "split_seed"},
    groups={
        "Options": ("data.path", "model", "weights", "num_images", "image_size", "class_weights", "seed"),
        "More options: data": ("data",),
        "More options: computation": ("task", "batch_size", "num_workers", "cache"),
    },
)
def probe(
    config: ProbeConfig,
    folder: Path | None = None,
    /,
    *,
    run: Path = Path("runs/probe"),
    overwrite: bool = False,
    output: OutputOptions = Output(),
) -> None:
    """Compare frozen backbones on a folder of images, in a minute and without training.

    Each backbone turns the images into features. A linear probe (logistic regression) and the nearest neighbours then
    tell the classes apart, cross-validated on the training images. The table has the accuracy, the time of one image on
    this machine, and the size. A page shows the learning curve over the number of labels, and a map of the images with
    the mistakes. The best probe is written as a run, which `evaluate`, `quantize`, `export` and `bench` take like
    any other. Features are kept, so that a second probe of the same images takes seconds.

    **Examples**

    ```sh
    vitrail probe photos/
    vitrail probe photos/ --model vit_tiny_patch16 mobilevit_s --run runs/probe-photos
    vitrail probe photos/ --model vit_tiny_patch16=vit.safetensors runs/earlier
    ```

    Args:
        folder: Folder of images, as for `--data`.
        run: Folder that the run of the best probe is written to.
        overwrite: Delete a run that is in the folder.
    """
    if folder is not None:
        if config.data.path not in (ProbeConfig().data.path, str(folder)):
            raise ConfigError(f"{folder} and --data {config.data.path} are two folders; give one of them")
        config = replace(config, data=replace(config.data, path=str(folder)))
    with display(output) as shown:
        report = probe_data(config, run=run, overwrite=overwrite, progress=shown.progress)
        page = write_probe_page(report, Run(run))
        show_probe(shown, report)
        shown.say(f"Map, learning curve and mistakes: {page}")
        shown.say(f"The probe is a run like any other: vitrail evaluate {typed_path(run)}")
        shown.say(f"Next: {report.next_command}")
        shown.result(report.to_dict() | {"run": str(run), "page": str(page)})


def show_probe(shown: Display, report: ProbeReport) -> None:
    """The table of the backbones, and what to do."""
    name, share = report.majority
    images = f"{sum(report.counts)} training images, {len(report.classes)} classes"
    shown.table(
        f"Linear probes of frozen backbones: {images}",
        ("backbone", "linear probe", "nearest neighbours", "validation", "here", "size"),
        [
            (
                row.label,
                number_text(accuracy_text(row.linear)),
                number_text(accuracy_text(row.nearest)),
                percent(row.val_top1),
                number(row.shown_ms, 1, " ms*" if row.contended else " ms"),
                megabytes(row.size_bytes),
            )
            for row in report.rows
        ]
        + [(f"always '{name}'", percent(share), None, None, None, None)],
    )
    if any(row.contended for row in report.rows):
        shown.say("* Other programs disturbed the measurement; this is processor time.")
    for line in (*report.notes, *report.advice):
        shown.say(line)
