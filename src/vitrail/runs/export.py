"""Export of a run's model and its quantised model, and the check for stale files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import isclose
from pathlib import Path

from vitrail.core.errors import ConfigError
from vitrail.core.progress import track
from vitrail.data import calibration_images
from vitrail.export import ExportRecord, export_source
from vitrail.export.outlier_output import OutlierOutput
from vitrail.export.source import Source, about, with_outlier_score
from vitrail.export.targets import TARGETS
from vitrail.quantization import quantize
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task, used_temperature
from vitrail.runs.min_confidence import keep_confidence
from vitrail.runs.quantize import load_plan
from vitrail.runs.run import Run, writes
from vitrail.runs.schema import read_record
from vitrail.runs.trust_file import read_trust
from vitrail.runs.trusted_answers import check_per_image
from vitrail.runtimes import FORMATS, export_command
from vitrail.tasks import Task

VERIFICATION_IMAGES = 64


@writes
def export_run(
    run: Run,
    num_images: int = VERIFICATION_IMAGES,
    *,
    formats: Sequence[str] = ("onnx",),
    variants: Sequence[str] = ("float", "int8"),
    dynamic_size: bool = False,
    outlier_score: bool = False,
    progress: bool = False,
) -> list[ExportRecord]:
    """Write the float file of every format, and the 8-bit one if the run has a plan and the format takes it.

    A plan that no runtime executes is never written to a file.

    Args:
        run: run with weights.
        num_images: number of held-out images that every file is verified on.
        formats: names in :data:`~vitrail.runtimes.table.FORMATS`.
        variants: "float", "int8" or both.
        dynamic_size: leave height and width of the float ONNX file free.
        outlier_score: give the float files a second output, where the format can have one.
        progress: show a bar.

    Raises:
        ExportError: a file disagrees with the model, or cannot be written.
        ConfigError: an outlier score of a task that gives an image no class, or for formats that have one output.
        RunError: the same, and ``vitrail trust`` has fitted none for the present weights.
    """
    description = run.read()
    task = load_task(run)
    outlier = _outlier_output(run, task, formats, variants) if outlier_score else None
    data = load_run_data(run)
    keep_confidence(run, task, data)
    images = task.inputs(calibration_images(data.held_out, description.preprocessing, num_images, 0))
    source = Source(model=task, images=images, facts=about(description.preprocessing, description.classes, task))
    sources = {"float": source} if "float" in variants else {}
    if "int8" in variants and run.quantization.exists() and any(FORMATS[name].takes_quantized for name in formats):
        plan = load_plan(run)
        if plan.simulated:
            _forget_quantized(run)
        else:
            sources["int8"] = replace(source, quantized=quantize(task, images, plan=plan))
    scored = None if outlier is None else with_outlier_score(source, outlier)
    records = []
    files = list(product(dict.fromkeys(formats), sources.items()))
    for name, (variant, source) in track(files, "Export", progress=progress):
        if source.quantized is not None and not FORMATS[name].takes_quantized:
            continue
        if scored is not None and source.quantized is None and TARGETS[name].second_output:
            source = scored
        if dynamic_size and name == "onnx" and source.quantized is None:
            source = replace(source, dynamic_size=True)
        path = run.exported(name, variant)
        records.append(export_source(source, path, format=name, variant=variant, weights_hash=run.weights_hash))
    return records


def _outlier_output(run: Run, task: Task, formats: Sequence[str], variants: Sequence[str]) -> OutlierOutput:
    check_per_image(run, task, outlier_score=True)
    able = [name for name, target in TARGETS.items() if target.second_output]
    if "float" not in variants or not set(able) & set(formats):
        raise ConfigError(f"is for float files of {', '.join(able)}; add one of these formats", outlier_score=True)
    trust = read_trust(run)
    return OutlierOutput(score=trust.outlier_score, threshold=trust.file.outlier.threshold)


def stale_reason(run: Run, file: Path) -> str | None:
    """The reason why an exported file does not match the run's weights; None if it does.

    A file is accepted if its record has no hash, as in version 0.1.0, or the run has no weights. One that divides its
    logits by another temperature than the run is not.

    Args:
        run: run of the file.
        file: exported file; its record is ``<file>.json``.

    Returns:
        one line with the command that makes the file again.
    """
    record = read_record(run, file)
    if not (record and file.exists() and run.weights.exists()):
        return None
    command = export_command(run.folder, record["format"])
    if record["weights_hash"] not in ("", run.weights_hash):
        return f"{file.name} was made from other weights; make it again with: {command}"
    if not isclose(record["temperature"], used := used_temperature(run), rel_tol=1e-9):
        return (
            f"{file.name} divides its logits by {record['temperature']:.3g}, and the run by {used:.3g}; make it again "
            f"with: {command}"
        )
    return None


def unfit_reason(run: Run, file: Path, runtime: str) -> str | None:
    """The reason why an exported file must not be used in a runtime; None if there is none.

    It is of other weights (:func:`stale_reason`), or gave wrong answers in this runtime when it was exported.

    Args:
        runtime: name in :data:`~vitrail.runtimes.table.RUNTIMES`.
    """
    if stale := stale_reason(run, file):
        return stale
    for check in read_record(run, file).get("checks", ()):
        if check["name"] == runtime and check["failure"]:
            return f"{file.name} is not right in {check['runtime']}: {check['failure']}"
    return None


def row_parts(run: Run, file: Path) -> tuple[int, ...]:
    """The parts of an output row of an exported file, see :class:`~vitrail.export.ExportRecord`."""
    return tuple(read_record(run, file).get("row_parts", ()))


def _forget_quantized(run: Run) -> None:
    """Delete the files of an earlier plan, so that they are not evaluated and measured as files of this one."""
    for name, known in FORMATS.items():
        if known.takes_quantized:
            path = run.exported(name, "int8")
            for part in (path, path.with_name(path.name + ".json"), path.with_suffix(".bin")):
                part.unlink(missing_ok=True)
