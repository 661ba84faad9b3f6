"""What every format has in common: written under another name, run, compared with the model, and only then renamed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.core.errors import ExportError, MissingDependencyError
from vitrail.core.files import atomic_folder, write_json
from vitrail.core.types import Preprocessing
from vitrail.export.failure import explained, silence
from vitrail.export.record import ExportRecord
from vitrail.export.verify import Agreement, Predictor, verify
from vitrail.quantization.graph.capture import without_checks

FLOAT_TOLERANCE = 1e-4
"""Kernels add in another order; all families stayed below 2e-6 in six runtimes."""

INTEGER_TOLERANCE = 0.1
"""Where a value lies on the edge between two codes, the last bit of a float decides, and layers amplify it."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """How one format is written and run.

    Attributes:
        format: a name in :data:`~vitrail.export.formats.FORMATS`.
        title: how it is called in messages, e.g. "LiteRT".
        package: the distribution whose version the record names as the runtime.
        write: makes the file, with preprocessing and classes inside where the format has a place for them.
        load: the finished file as a function on arrays; None where nothing on this machine can run it.
        batch_size: the only one that the file takes; None if any.
        other_size: images of another height and width that the file must agree on too; None where it has one size.
    """

    format: str
    title: str
    package: str
    write: Callable[[Path], object]
    load: Callable[[Path], Predictor] | None
    batch_size: int | None = None
    other_size: Tensor | None = None

    @property
    def runtime(self) -> str:
        return f"{self.title} {version(self.package)}"


def need(*modules: str, package: str, extra: str, then: str = "") -> None:
    """Import the modules of an optional extra.

    Raises:
        MissingDependencyError: one is not installed; the message has the commands that install it.
    """
    try:
        with silence():
            for module in modules:
                importlib.import_module(module)
    except ImportError as missing:
        raise MissingDependencyError(package, extra, then) from missing


def about(preprocessing: Preprocessing, classes: Sequence[str]) -> dict[str, Any]:
    """What a file says of itself: how an image becomes its input, and what its outputs are called."""
    return {"preprocessing": preprocessing.to_dict(), "classes": list(classes)}


def write_verified(
    target: Target,
    path: str | Path,
    model: nn.Module,
    images: Tensor,
    facts: dict[str, Any],
    *,
    variant: str,
    tolerance: float,
) -> ExportRecord:
    """Write a file by ``target``, compare it with ``model`` on ``images`` (n, c, h, w), and give it its name.

    Raises:
        ExportError: it cannot be made or run, or disagrees; an older file of that name stays, and nothing else.
    """
    check_images(images)
    path = Path(path)
    with atomic_folder(path) as draft:
        with explained(target.title):
            target.write(draft)
        agreement = _verified(target, draft, model, images, tolerance) if target.load else None
        record = ExportRecord(
            path=path,
            format=target.format,
            variant=variant,
            size_bytes=sum(part.stat().st_size for part in draft.parent.rglob("*") if part.is_file()),
            runtime=target.runtime if agreement else None,
            verified=agreement is not None,
            max_relative_error=agreement.max_relative_error if agreement else None,
            top1_agreement=agreement.top1_agreement if agreement else None,
            unmatched_rows=agreement.unmatched_rows if agreement else None,
            num_images=len(images) if agreement else 0,
            batch_size=target.batch_size,
            dynamic_batch=target.batch_size is None and agreement is not None,
            dynamic_size=target.other_size is not None and agreement is not None,
        )
        write_json(draft.with_name(path.name + ".json"), facts | {"record": record.to_dict()})
    return record


def _verified(target: Target, draft: Path, model: nn.Module, images: Tensor, tolerance: float) -> Agreement:
    assert target.load is not None
    with explained(target.title):
        predict = target.load(draft)
    agreements = []
    for batch in [images] if target.other_size is None else [images, target.other_size]:
        with silence():
            agreements.append(
                verify(predict, model, batch, tolerance=tolerance, batch_size=target.batch_size, runtime=target.runtime)
            )
    return max(agreements, key=lambda agreement: agreement.max_relative_error)


def check_images(images: Tensor) -> None:
    """Refuse what a file cannot be verified on.

    Raises:
        ExportError: fewer than two images, or not (n, c, h, w).
    """
    if images.ndim != 4 or len(images) < 2:
        raise ExportError(
            f"verification images have shape {tuple(images.shape)}; pass at least 2 real normalised images (n, c, h, w)"
        )


def as_json(facts: dict[str, Any]) -> dict[str, str]:
    """Facts as the strings that go into a file's metadata: ``vitrail.preprocessing``, ``vitrail.classes``."""
    return {f"vitrail.{name}": json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def torch_predictor(call: Callable[[Tensor], Tensor]) -> Predictor:
    """A function on tensors as one on arrays."""

    def predict(images: Any) -> Any:
        with torch.inference_mode():
            return call(torch.from_numpy(images)).numpy()

    return predict


def one_image_program(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """The graph of a model for exactly one image of that shape, for runtimes that plan memory ahead.

    What depends on weights alone, such as a table of relative positions spread over all pairs, is computed here once:
    mobile runtimes would compute it for every image, or lack the operations.

    Raises:
        ExportError: the model cannot be captured.
    """
    from torch._inductor.constant_folding import constant_fold

    example = (torch.zeros(1, *images.shape[1:]),)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with explained("torch.export"), torch.no_grad():
            module = without_checks(torch.export.export(model, example)).module(check_guards=False)
            constant_fold(module)
            return without_checks(torch.export.export(module, example))
    finally:
        for part, training in modes:
            part.training = training
