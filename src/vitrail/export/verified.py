"""One function for every format: written under another name, run, compared with the model, and only then renamed."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from vitrail.core.errors import BenchError, ExportError
from vitrail.core.extras import import_extra
from vitrail.core.files import atomic_folder, write_json
from vitrail.core.types import Preprocessing
from vitrail.export.agreement import Agreement, verify
from vitrail.export.failure import explain, explained, silence
from vitrail.export.onnx_file import other_size
from vitrail.export.record import ExportRecord
from vitrail.export.source import Source, about
from vitrail.export.targets import INTEGER_TOLERANCE, TARGETS
from vitrail.quantization import QuantizedModel
from vitrail.runtimes import FORMATS, RUNTIMES, check_formats, open_session


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
    check_formats([format])
    target, path = TARGETS[format], Path(path)
    _check_offered(format, quantized is not None, dynamic_size)
    facts = about(preprocessing, classes, model)
    source = Source(model=model, images=images, facts=facts, quantized=quantized, dynamic_size=dynamic_size)
    default = target.tolerance if quantized is None else INTEGER_TOLERANCE
    with atomic_folder(path) as draft:
        with explained(FORMATS[format].title):
            target.write(source, draft)
        agreement, runtime = _run(draft, format, source, default if tolerance is None else tolerance)
        record = ExportRecord(
            path=path,
            format=format,
            variant=variant,
            size_bytes=sum(part.stat().st_size for part in draft.parent.rglob("*") if part.is_file()),
            runtime=runtime,
            verified=agreement is not None,
            **asdict(agreement) if agreement else dict.fromkeys(field.name for field in fields(Agreement)),
            num_images=len(images) if agreement else 0,
            batch_size=FORMATS[format].batch_size,
            dynamic_batch=FORMATS[format].batch_size is None and agreement is not None,
            dynamic_size=dynamic_size and agreement is not None,
            weights_hash=weights_hash,
        )
        write_json(draft.with_name(path.name + ".json"), facts | {"record": record.to_dict()})
    return record


def _check_offered(format: str, quantized: bool, dynamic_size: bool) -> None:
    """Refuse what the format cannot hold, and a format whose extra is not installed.

    Raises:
        MissingDependencyError: the message has the commands that install it.
    """
    if quantized and not FORMATS[format].takes_quantized:
        names = " or ".join(name for name, known in FORMATS.items() if known.takes_quantized)
        raise ExportError(f"format '{format}' takes no quantised model; choose {names}")
    if dynamic_size and not TARGETS[format].free_size:
        names = " or ".join(name for name, known in TARGETS.items() if known.free_size)
        raise ExportError(f"format '{format}' keeps one image size; choose {names}, or leave out dynamic_size")
    target = TARGETS[format]
    with silence():
        for module in target.needs:
            import_extra(module, target.package, RUNTIMES[FORMATS[format].runtime].extra, target.then)


def _run(draft: Path, format: str, source: Source, tolerance: float) -> tuple[Agreement, str] | tuple[None, None]:
    """The worst agreement over the image sizes that the file is made for, and what ran it; None where nothing here can.

    The file is loaded as it will be to be evaluated and measured. Only the shape of the images is not told to the
    runtime, since the file is run at several batch sizes.
    """
    known = RUNTIMES[FORMATS[format].runtime]
    if known.system not in ("", platform.system()):
        return None, None
    try:
        with silence():
            session = open_session(draft, FORMATS[format].runtime, torch.get_num_threads())
    except BenchError as failure:
        raise ExportError(explain(failure, FORMATS[format].title)) from failure
    title = f"{known.title} {session.version}"
    sizes = [source.images] + ([other_size(source.model, source.images)] if source.dynamic_size else [])
    agreements = []
    for images in sizes:
        with silence():
            agreements.append(
                verify(
                    session,
                    source.reference,
                    images,
                    tolerance=tolerance,
                    batch_size=session.batch_size,
                    runtime=title,
                )
            )
    return max(agreements, key=lambda agreement: agreement.max_relative_error), title
