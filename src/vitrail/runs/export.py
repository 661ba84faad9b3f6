"""Export of a run's model and its quantised model, and the check for stale files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitrail.data import calibration_images
from vitrail.export import ExportRecord, export_model
from vitrail.quantization import quantize
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task
from vitrail.runs.quantize import load_plan
from vitrail.runs.run import Run, writes
from vitrail.runs.schema import read_record
from vitrail.runtimes import FORMATS, export_command

VERIFICATION_IMAGES = 64


@writes
def export_run(
    run: Run,
    num_images: int = VERIFICATION_IMAGES,
    *,
    formats: Sequence[str] = ("onnx",),
    variants: Sequence[str] = ("float", "int8"),
    dynamic_size: bool = False,
) -> list[ExportRecord]:
    """Write the float file of every format, and the 8-bit one if the run has a plan and the format takes it.

    A plan that no runtime executes is never written to a file.

    Args:
        run: run with weights.
        num_images: number of held-out images that every file is verified on.
        formats: names in :data:`~vitrail.runtimes.table.FORMATS`.
        variants: "float", "int8" or both.
        dynamic_size: leave height and width of the float ONNX file free.

    Raises:
        ExportError: a file disagrees with the model, or cannot be written.
    """
    description = run.read()
    preprocessing = description.preprocessing
    task = load_task(run)
    images = task.inputs(calibration_images(load_run_data(run).held_out, preprocessing, num_images, 0))
    given: dict[str, Any] = {
        "preprocessing": preprocessing,
        "classes": description.classes,
        "images": images,
        "weights_hash": run.weights_hash,
    }
    quantized = None
    if "int8" in variants and run.quantization.exists() and any(FORMATS[name].takes_quantized for name in formats):
        plan = load_plan(run)
        if plan.simulated:
            _forget_quantized(run)
        else:
            quantized = quantize(task, images, plan=plan)
    records = []
    for name in dict.fromkeys(formats):
        if "float" in variants:
            free = dynamic_size and name == "onnx"
            records.append(export_model(task, run.exported(name), format=name, dynamic_size=free, **given))
        if quantized is not None and FORMATS[name].takes_quantized:
            path = run.exported(name, "int8")
            records.append(export_model(task, path, format=name, variant="int8", quantized=quantized, **given))
    return records


def stale_reason(run: Run, file: Path) -> str | None:
    """The reason why an exported file does not match the run's weights; None if it does.

    A file is accepted if its record has no hash, as in version 0.1.0, or the run has no weights.

    Args:
        run: run of the file.
        file: exported file; its record is ``<file>.json``.

    Returns:
        one line with the command that makes the file again.
    """
    record = read_record(run, file)
    if not (record and file.exists() and run.weights.exists()) or record["weights_hash"] in ("", run.weights_hash):
        return None
    command = export_command(run.folder, record["format"])
    return f"{file.name} was made from other weights; make it again with: {command}"


def _forget_quantized(run: Run) -> None:
    """Delete the files of an earlier plan, so that they are not evaluated and measured as files of this one."""
    for name, known in FORMATS.items():
        if known.takes_quantized:
            path = run.exported(name, "int8")
            for part in (path, path.with_name(path.name + ".json"), path.with_suffix(".bin")):
                part.unlink(missing_ok=True)
