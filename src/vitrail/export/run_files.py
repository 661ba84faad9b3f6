"""The files of a run: of its model, and of its quantised model where it has a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitrail.core.types import Preprocessing
from vitrail.data import calibration_images
from vitrail.export.formats import FORMATS
from vitrail.export.record import ExportRecord
from vitrail.quantization import QuantizationPlan, quantize
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task
from vitrail.runs.run import Run

VERIFICATION_IMAGES = 64


def export_run(
    run: Run,
    num_images: int = VERIFICATION_IMAGES,
    *,
    formats: Sequence[str] = ("onnx",),
    variants: Sequence[str] = ("float", "int8"),
    dynamic_size: bool = False,
) -> list[ExportRecord]:
    """The float file of every format, and the 8-bit one where the run has a plan and the format takes it.

    A plan that no runtime executes is never written to a file.

    Args:
        run: with weights.
        num_images: held-out images that every file is verified on.
        formats: names in :data:`~vitrail.export.formats.FORMATS`.
        variants: "float", "int8" or both.
        dynamic_size: of the float ONNX file.

    Raises:
        ExportError: a file disagrees with the model, or cannot be written.
    """
    description = run.read()
    preprocessing = Preprocessing.from_dict(description["preprocessing"])
    task = load_task(run)
    images = task.inputs(calibration_images(load_run_data(run).held_out, preprocessing, num_images, 0))
    given: dict[str, Any] = {"preprocessing": preprocessing, "classes": description["classes"], "images": images}
    quantized = None
    if "int8" in variants and run.quantization.exists() and any(FORMATS[name].takes_quantized for name in formats):
        plan = QuantizationPlan.load(run.quantization)
        if plan.simulated:
            _forget_quantized(run)
        else:
            quantized = quantize(task, images, plan=plan)
    records = []
    for name in dict.fromkeys(formats):
        write = FORMATS[name].exporter()
        if "float" in variants:
            more = {"dynamic_size": True} if dynamic_size and name == "onnx" else {}
            records.append(write(task, run.exported(name), **given, **more))
        if quantized is not None and FORMATS[name].takes_quantized:
            records.append(write(task, run.exported(name, "int8"), **given, variant="int8", quantized=quantized))
    return records


def _forget_quantized(run: Run) -> None:
    """Files of an earlier plan would be evaluated and measured as if they were this one's."""
    for name, known in FORMATS.items():
        if known.takes_quantized:
            path = run.exported(name, "int8")
            for part in (path, path.with_name(path.name + ".json"), path.with_suffix(".bin")):
                part.unlink(missing_ok=True)
