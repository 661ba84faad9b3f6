"""``vitrail export``: files that other programs run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitrail.cli.display import Display, Output, OutputOptions, display, megabytes, number, percent
from vitrail.cli.options import WholeNumber
from vitrail.cli.run_data import load_run_data
from vitrail.core.errors import ConfigError
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import calibration_images
from vitrail.export import ExportRecord, export_onnx
from vitrail.quantization import QuantizationPlan, quantize
from vitrail.tasks import load_task

VERIFICATION_IMAGES = 64


def export(run: Path, /, *, num_images: WholeNumber = VERIFICATION_IMAGES, output: OutputOptions = Output()) -> None:
    """Write a run's model as verified ONNX files.

    `model.onnx` is the float model; `model.int8.onnx`, written where the run has a plan from `vitrail quantize`,
    computes with 8-bit integers. Each file is run on real images and compared with the model before it gets its name;
    it takes any batch size, and carries preprocessing and class names in its metadata and in a JSON file beside it.

    **Examples**

    ```sh
    vitrail export runs/photos
    vitrail quantize runs/photos && vitrail export runs/photos
    vitrail export runs/photos --json
    ```

    Args:
        run: Run folder.
        num_images: Held-out images that every file is verified on.
    """
    if num_images < 2:
        raise ConfigError(f"num_images={num_images} is below 2; {VERIFICATION_IMAGES} is usual")
    with display(output) as shown:
        opened = Run.open(run)
        records = export_run(opened, num_images)
        show_export(shown, records)
        if not opened.quantization.exists():
            shown.say(f"For an 8-bit file too: vitrail quantize {run} && vitrail export {run}")
        shown.result([record.to_dict() for record in records])


def export_run(run: Run, num_images: int = VERIFICATION_IMAGES) -> list[ExportRecord]:
    """The float file, and the 8-bit one where the run has a plan."""
    description = run.read()
    preprocessing = Preprocessing.from_dict(description["preprocessing"])
    classes = description["classes"]
    task = load_task(run)
    images = calibration_images(load_run_data(run).held_out, preprocessing, num_images, 0)
    records = [export_onnx(task, run.onnx("float"), preprocessing=preprocessing, classes=classes, images=images)]
    if run.quantization.exists():
        quantized = quantize(task, images, plan=QuantizationPlan.load(run.quantization))
        records.append(
            export_onnx(
                task,
                run.onnx("int8"),
                preprocessing=preprocessing,
                classes=classes,
                images=images,
                variant="int8",
                quantized=quantized,
            )
        )
    return records


def show_export(shown: Display, records: Sequence[ExportRecord]) -> None:
    """The files, and how well they agree with the model."""
    shown.table(
        "Exported files",
        ("file", "size", "largest error", "same top-1"),
        [
            (
                record.path.name,
                megabytes(record.size_bytes),
                number(record.max_relative_error, 6),
                percent(record.top1_agreement),
            )
            for record in records
        ],
    )
