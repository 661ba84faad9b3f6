"""``vitrail export``: files that other programs run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitrail.cli.display import Display, Output, OutputOptions, display, megabytes, number, percent
from vitrail.cli.options import WholeNumber
from vitrail.cli.words import split_words
from vitrail.core.errors import ConfigError
from vitrail.core.paths import typed_path
from vitrail.export import ExportRecord
from vitrail.runs.export import VERIFICATION_IMAGES, export_run
from vitrail.runs.quantize import load_plan
from vitrail.runs.run import Run
from vitrail.runtimes import FORMATS, FormatName, check_formats

FORMAT_WORDS = Parameter(name=("--format", "--formats"), consume_multiple=True, negative=(), converter=split_words)


def export(
    run: Path,
    /,
    *,
    formats: Annotated[tuple[FormatName, ...], FORMAT_WORDS] = ("onnx",),
    dynamic_size: Annotated[bool, Parameter(negative=())] = False,
    outlier_score: Annotated[bool, Parameter(negative=())] = False,
    num_images: WholeNumber = VERIFICATION_IMAGES,
    output: OutputOptions = Output(),
) -> None:
    """Write a run's model as verified files: ONNX, OpenVINO, torch.export, AOTInductor, ExecuTorch, LiteRT, Core ML.

    `model.onnx` is the float model; `model.int8.onnx`, written where the run has a plan from `vitrail quantize`,
    computes with 8-bit integers. Each file is run on real images and compared with the model before it gets its name,
    in every runtime of this machine that takes it.
    Preprocessing and class names are in its metadata and in a JSON file beside it. ONNX, OpenVINO and torch.export
    files take any batch size, those for phones one image at a time.

    **Examples**

    ```sh
    vitrail export runs/photos
    vitrail quantize runs/photos && vitrail export runs/photos --format onnx,openvino
    vitrail export runs/photos --format executorch --format litert --json
    vitrail export runs/photos --dynamic-size
    vitrail trust runs/photos && vitrail export runs/photos --outlier-score
    ```

    Args:
        run: Run folder.
        formats: One or more formats of the files.
        dynamic_size: Let the float ONNX file take images of any height and width that the architecture can.
        outlier_score: Give float ONNX, OpenVINO and torch.export files of a classifier a second output: how unlike the
            training images an image is, as `vitrail trust` fitted it. The metadata say above which score an image is
            unusual.
        num_images: Number of held-out images that every file is verified on.
    """
    if num_images < 2:
        raise ConfigError(f"is below 2; {VERIFICATION_IMAGES} is usual", num_images=num_images)
    check_formats(formats)
    if dynamic_size and "onnx" not in formats:
        raise ConfigError("dynamic_size is for ONNX files; add onnx to the formats")
    with display(output) as shown:
        opened = Run.open(run)
        records = export_run(
            opened,
            num_images,
            formats=formats,
            dynamic_size=dynamic_size,
            outlier_score=outlier_score,
            progress=shown.progress,
        )
        show_export(shown, records)
        if outlier_score:
            _show_outlier_scores(shown, records)
        if not opened.quantization.exists() and any(FORMATS[name].takes_quantized for name in formats):
            folder = typed_path(run)
            shown.say(f"For an 8-bit file too: vitrail quantize {folder} && vitrail export {folder}")
        simulated = load_plan(opened).simulated if opened.quantization.exists() else ()
        if simulated:
            shown.say(
                f"The quantised model is simulated only and was not exported: {len(simulated)} operands, among them "
                f"{simulated[0]}, have codes that no runtime executes; quantise with --activation-bits 8"
            )
        shown.result([record.to_dict() for record in records])


def _show_outlier_scores(shown: Display, records: Sequence[ExportRecord]) -> None:
    """Which files have the second output, and which have not."""
    names = {has: [r.path.name for r in records if (r.outlier_score_error is not None) is has] for has in (True, False)}
    shown.say(f"With an outlier score as second output: {', '.join(names[True])}")
    if names[False]:
        shown.say(
            f"Without: {', '.join(names[False])}. The score is fitted to float features, and 8 bits change these; "
            f"files of other formats have one output"
        )


def show_export(shown: Display, records: Sequence[ExportRecord]) -> None:
    """The files, and how well they agree with the model."""
    shown.table(
        "Exported files",
        ("file", "size", "largest error", "same top-1", "run by"),
        [
            (
                record.path.name,
                megabytes(record.size_bytes),
                number(record.max_relative_error, 6),
                percent(record.top1_agreement),
                record.runtime,
            )
            for record in records
        ],
    )
    for record in records:
        if record.unmatched_rows:
            shown.say(
                f"{record.path.name}: {percent(record.unmatched_rows)} of the rows have no counterpart in the model's "
                f"output; of places that score nearly alike, it chose others."
            )
        for check in record.checks:
            if check.failure:
                shown.say(f"{record.path.name} must not be used in {check.runtime}: {check.failure}")
        if not record.verified:
            shown.say(f"{record.path.name} was converted and not verified: nothing on this machine can run it.")
