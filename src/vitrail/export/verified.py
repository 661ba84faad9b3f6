"""One function for every format: written under another name, run, compared with the model, and only then renamed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.core.errors import BenchError, ExportError
from vitrail.core.extras import import_extra
from vitrail.core.files import atomic_folder, write_json
from vitrail.core.types import Preprocessing
from vitrail.export.failure import explain, explained, silence
from vitrail.export.model_outputs import BATCH_SIZE, SINGLES, agreement_of, complaint, file_outputs, model_outputs
from vitrail.export.onnx_file import other_size
from vitrail.export.outlier_output import OUTLIER_OUTPUT, outlier_scores
from vitrail.export.record import ExportRecord, RuntimeCheck
from vitrail.export.source import Source, about
from vitrail.export.targets import TARGETS
from vitrail.quantization import QuantizedModel
from vitrail.runtimes import FORMATS, RUNTIMES, Images, Session, check_formats, import_runtime, open_session, takers
from vitrail.runtimes.alike import INTEGER_TOLERANCE, compare
from vitrail.runtimes.processor import processor
from vitrail.tasks import Task


def export_model(
    model: nn.Module,
    path: str | Path,
    *,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    images: Tensor,
    format: str = "onnx",
    variant: str = "float",
    quantized: QuantizedModel | None = None,
    tolerance: float | None = None,
    dynamic_size: bool = False,
    weights_hash: str = "",
) -> ExportRecord:
    """Write ``model``, or its quantised form, to a file of a format, and ``<path>.json`` beside it.

    The file takes normalised float32 images (b, c, h, w) named ``image`` and gives ``logits`` (or the ``output_name``
    that the model has), at any batch size or one image at a time, as the format has it. Preprocessing, class names and
    what decodes the output are stored in its metadata, each as JSON; the file beside it has the record too. Off a Mac,
    Core ML is converted and not run: the record then has ``verified`` false and no figures.

    Args:
        model: the float model.
        path: where the file goes; an older one is replaced only by a verified one.
        preprocessing: how an image becomes the model's input.
        classes: names of the outputs, in order.
        images: real normalised images (n, c, h, w), n >= 2, to verify the file on.
        format: a name in :data:`~vitrail.runtimes.table.FORMATS`.
        variant: how the record calls the file.
        quantized: write this instead of ``model``; the file is then compared with its simulation.
        tolerance: largest relative error; by default 0.1 for integer files, for float ones as in
            :data:`~vitrail.export.targets.TARGETS`.
        dynamic_size: leave height and width free too, and verify the file at a second size; for float ONNX files of
            models whose architecture is not tied to one size.
        weights_hash: the hash of the weights, for the record; see :func:`~vitrail.core.files.file_hash`.

    Raises:
        UnknownNameError: no such format.
        MissingDependencyError: the format's extra is not installed.
        ExportError: the model cannot be exported, is too large, or the file disagrees; an older file of that name
            stays, and nothing else.
    """
    _check_offered(format, quantized is not None, dynamic_size)
    source = Source(
        model=model,
        images=images,
        facts=about(preprocessing, classes, model),
        quantized=quantized,
        dynamic_size=dynamic_size,
    )
    return export_source(source, path, format=format, variant=variant, tolerance=tolerance, weights_hash=weights_hash)


def export_source(
    source: Source,
    path: str | Path,
    *,
    format: str = "onnx",
    variant: str = "float",
    tolerance: float | None = None,
    weights_hash: str = "",
) -> ExportRecord:
    """Write a source as :func:`export_model` does; formats that start from ONNX share one conversion of it.

    Args:
        source: the model and its facts.
        path: where the file goes.
        format: a name in :data:`~vitrail.runtimes.table.FORMATS`.
        variant: how the record calls the file.
        tolerance: largest relative error, as in :func:`export_model`.
        weights_hash: the hash of the weights, for the record.

    Raises:
        UnknownNameError, MissingDependencyError, ExportError: as in :func:`export_model`.
    """
    _check_offered(format, source.quantized is not None, source.dynamic_size, outlier=source.outlier is not None)
    target, path = TARGETS[format], Path(path)
    default = target.tolerance if source.quantized is None else INTEGER_TOLERANCE
    with atomic_folder(path) as draft:
        with explained(FORMATS[format].title):
            target.write(source, draft)
        checks = _run(draft, format, source, default if tolerance is None else tolerance)
        own = checks[0] if checks else None
        record = ExportRecord(
            path=path,
            format=format,
            variant=variant,
            size_bytes=sum(part.stat().st_size for part in draft.parent.rglob("*") if part.is_file()),
            runtime=own.runtime if own else None,
            verified=own is not None,
            max_relative_error=own.max_relative_error if own else None,
            top1_agreement=own.top1_agreement if own else None,
            unmatched_rows=own.unmatched_rows if own else None,
            num_images=len(source.images) if own else 0,
            batch_size=FORMATS[format].batch_size,
            dynamic_batch=FORMATS[format].batch_size is None and own is not None,
            dynamic_size=source.dynamic_size and own is not None,
            weights_hash=weights_hash,
            row_parts=tuple(getattr(source.reference, "row_parts", ())),
            outlier_score_error=own.outlier_score_error if own else None,
            temperature=source.temperature,
            checks=tuple(checks),
            cpu_features=processor()[1],
        )
        write_json(draft.with_name(path.name + ".json"), source.facts | {"record": record.to_dict()})
    return record


def _check_offered(format: str, quantized: bool, dynamic_size: bool, *, outlier: bool = False) -> None:
    """Refuse what the format cannot hold, and a format whose extra is not installed.

    Raises:
        UnknownNameError: no such format.
        MissingDependencyError: the message has the commands that install it.
    """
    check_formats([format])
    if quantized and not FORMATS[format].takes_quantized:
        names = " or ".join(name for name, known in FORMATS.items() if known.takes_quantized)
        raise ExportError(f"format '{format}' takes no quantised model; choose {names}")
    if dynamic_size and not TARGETS[format].free_size:
        names = " or ".join(name for name, known in TARGETS.items() if known.free_size)
        raise ExportError(f"format '{format}' keeps one image size; choose {names}, or leave out dynamic_size")
    target = TARGETS[format]
    if outlier and not target.second_output:
        raise ExportError(f"format '{format}' keeps one output; leave the outlier score out")
    with silence():
        for module in target.needs:
            import_extra(module, target.package, RUNTIMES[FORMATS[format].runtime].extra, target.then)


def _run(draft: Path, format: str, source: Source, tolerance: float) -> list[RuntimeCheck]:
    """How the file answers in every runtime that takes it; none where nothing here can run it.

    Raises:
        ExportError: the format's own runtime cannot run the file, or its answers disagree.
    """
    checks: list[RuntimeCheck] = []
    for name in takers(format):
        if name == FORMATS[format].runtime:
            check = _check(draft, format, name, source, tolerance)
            if check.failure:
                raise ExportError(
                    f"{check.failure}; nothing was written. Report the model, or raise tolerance if you accept it"
                )
        elif not _installed(name):
            continue
        else:
            try:
                check = _check(draft, format, name, source, tolerance)
            except ExportError as failure:
                check = RuntimeCheck(name=name, runtime=RUNTIMES[name].title, failure=str(failure))
        checks.append(check)
    return checks


def _installed(runtime: str) -> bool:
    try:
        import_runtime(runtime)
    except BenchError:
        return False
    return True


def _check(draft: Path, format: str, name: str, source: Source, tolerance: float) -> RuntimeCheck:
    """The worst agreement over the image sizes that the file is made for.

    The file is loaded as it will be to be evaluated and measured. Only the shape of the images is not told to the
    runtime, since the file is run at several batch sizes. Another runtime than the format's own may round less often
    between codes than the simulation does: it is right too where it is as close to the float model.

    Raises:
        ExportError: the file does not run.
    """
    try:
        with silence():
            session = open_session(draft, name, torch.get_num_threads())
    except BenchError as failure:
        raise ExportError(explain(failure, RUNTIMES[name].title)) from failure
    title = f"{RUNTIMES[name].title} {session.version}"
    given: dict[str, Any] = {"tolerance": tolerance, "batch_size": session.batch_size, "runtime": title}
    sizes = [source.images] + ([other_size(source.model, source.images)] if source.dynamic_size else [])
    with silence():
        agreements = [agreement_of(session, source.reference, images, **given) for images in sizes]
    worst = max(agreements, key=lambda agreement: agreement.max_relative_error)
    complaints = [complaint(agreement, len(source.images), tolerance) for agreement in agreements]
    wrong = next(filter(None, complaints), "")
    if wrong and source.quantized is not None and name != FORMATS[format].runtime and not worst.unmatched_rows:
        with silence():
            error = agreement_of(session, source.model, source.images, **given).max_relative_error
        simulated = compare(model_outputs(source.quantized, source.images), model_outputs(source.model, source.images))
        wrong = wrong if error > simulated.max_relative_error else ""
    figures = {field: value if math.isfinite(value) else None for field, value in asdict(worst).items()}
    if source.outlier is not None and not wrong:
        with silence():
            score_error = max(_outlier_error(session, source, images, title) for images in sizes)
        figures["outlier_score_error"] = score_error if math.isfinite(score_error) else None
        if not score_error <= tolerance:
            wrong = (
                f"the outlier scores of the exported model disagree with those of the PyTorch model: relative error "
                f"{score_error:.2g} on {len(source.images)} images, allowed {tolerance:.2g}"
            )
    return RuntimeCheck(name=name, runtime=title, **figures, failure=wrong)


def _outlier_error(session: Session, source: Source, images: Tensor, title: str) -> float:
    """Largest relative error of the second output of a float file, in batches and for single images; infinite where it
    has another shape.

    Raises:
        ExportError: the file does not run, or has no output of that name.
    """
    assert source.outlier is not None
    assert isinstance(source.model, Task)
    named = session.outputs
    assert named is not None, "Target.second_output is for formats whose runtime tells names"
    expected, size = outlier_scores(source.model, source.outlier.score, images)

    def second(batch: Images) -> NDArray[Any]:
        return named(batch)[OUTLIER_OUTPUT]

    errors = []
    for batch_size, count in ((BATCH_SIZE, len(images)), (1, SINGLES)):
        found = file_outputs(second, images[:count], batch_size, title)
        if found.shape != expected[:count].shape:
            return math.inf
        error = float(np.abs(found - expected[:count]).max()) / max(size, 1e-12)
        errors.append(error if math.isfinite(error) else math.inf)
    return max(errors)
