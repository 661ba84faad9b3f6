"""How far a file's outputs are from the model's, on real images, at every batch size that the file takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.core.errors import ExportError

Predictor = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Normalised images (b, c, h, w) to outputs (b, ...)."""

BATCH_SIZE = 16
"""Images that go through the file at once, where it takes any number of them."""

SINGLES = 4
"""Images that go through such a file one by one too, which shows a batch size that was fixed during export."""

MOST_UNMATCHED = 0.25
"""Largest share of rows without a counterpart. Where rows are chosen by their scores, the last bit of a float decides
between two of equal score, as on a plain background, and which others are their duplicates. Wrong files exceed it."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two lists of outputs are apart, see :class:`~vitrail.export.record.ExportRecord`."""

    max_relative_error: float
    top1_agreement: float
    unmatched_rows: float = 0.0


def compare_sets(outputs: np.ndarray, reference: np.ndarray, tolerance: float, parts: Sequence[int]) -> Agreement:
    """Agreement of outputs (n, rows, c) whose rows are a set.

    Each row is held against the most similar one of the other side. How far two rows are apart is decided by the part
    (of ``parts`` channels) that differs most: a root mean square, relative to the part's largest value.
    ``max_relative_error`` is that of rows within ``tolerance``, and infinite where there is none; ``unmatched_rows`` is
    the share of the others, of the side that has more. A NaN matches nothing.
    """
    if not (np.isfinite(outputs).all() and np.isfinite(reference).all()):
        return Agreement(max_relative_error=float("inf"), top1_agreement=0.0, unmatched_rows=1.0)
    ours, theirs = (torch.from_numpy(rows).double().split(tuple(parts), -1) for rows in (outputs, reference))
    scales = [(float(part.abs().max()) or 1.0) * part.shape[-1] ** 0.5 for part in theirs]
    distances = torch.stack([torch.cdist(a, b) / scale for a, b, scale in zip(ours, theirs, scales, strict=True)])
    distances = distances.amax(0)
    nearest = torch.stack([distances.amin(1), distances.amin(2)]).numpy()  # side, image, row
    matched = nearest <= tolerance
    channels = outputs.shape[-1]
    best, wanted = (rows.reshape(len(rows), -1).argmax(1) % channels for rows in (outputs, reference))
    return Agreement(
        max_relative_error=float(nearest[matched].max()) if matched.any() else float("inf"),
        top1_agreement=float((best == wanted).mean()),
        unmatched_rows=1 - float(matched.mean((1, 2)).min()),
    )


def compare(outputs: np.ndarray, reference: np.ndarray) -> Agreement:
    """Agreement of outputs (n, ...) with the reference's, both finite or not: a NaN gives an infinite error."""
    scale = float(np.abs(reference).max()) or 1.0
    error = float(np.abs(outputs - reference).max()) / scale
    flat, flat_reference = outputs.reshape(len(outputs), -1), reference.reshape(len(reference), -1)
    same = flat.argmax(1) == flat_reference.argmax(1)
    return Agreement(
        max_relative_error=error if np.isfinite(error) else float("inf"), top1_agreement=float(same.mean())
    )


def model_outputs(model: nn.Module, images: Tensor) -> np.ndarray:
    """Outputs of a PyTorch model (n, ...), batch by batch, in eval mode."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            return torch.cat([model(batch) for batch in images.split(BATCH_SIZE)]).float().cpu().numpy()
    finally:
        model.train(training)


def file_outputs(predict: Predictor, images: Tensor, batch_size: int, runtime: str) -> np.ndarray:
    """Outputs (n, ...) of a loaded file.

    Raises:
        ExportError: ``runtime`` cannot run it at that batch size.
    """
    try:
        return np.concatenate([predict(batch.cpu().numpy()) for batch in images.split(batch_size)])
    except Exception as failure:  # the runtimes' exception classes have no common base
        reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        size = "x".join(map(str, images.shape[-2:]))
        raise ExportError(
            f"{runtime} cannot run the exported model at batch size {batch_size}, {size} pixels: {reason}; "
            f"nothing was written"
        ) from failure


def verify(
    predict: Predictor, model: nn.Module, images: Tensor, *, tolerance: float, batch_size: int | None, runtime: str
) -> Agreement:
    """Run the file on all images, and compare with the model.

    Args:
        predict: the loaded file.
        model: the model that it was made from.
        images: normalised images (n, c, h, w).
        tolerance: largest relative error.
        batch_size: the only batch size of the file; None if it takes any: then batches and single images are tried.
        runtime: the program that runs the file, for messages.

    A model that has ``row_parts`` is compared by :func:`compare_sets`.

    Raises:
        ExportError: it does not run, or disagrees by more than ``tolerance``, or in more than :data:`MOST_UNMATCHED`
            of the rows.
    """
    reference = model_outputs(model, images)
    parts = getattr(model, "row_parts", ())
    passes: Sequence[tuple[int, int]] = (
        [(BATCH_SIZE, len(images)), (1, SINGLES)] if batch_size is None else [(batch_size, _whole(images, batch_size))]
    )
    agreements = []
    for size, count in passes:
        outputs = file_outputs(predict, images[:count], size, runtime)
        wanted = reference[:count]
        agreements.append(compare_sets(outputs, wanted, tolerance, parts) if parts else compare(outputs, wanted))
    worst = max(agreement.max_relative_error for agreement in agreements)
    unmatched = max(agreement.unmatched_rows for agreement in agreements)
    if unmatched > MOST_UNMATCHED:
        raise ExportError(
            f"the exported model disagrees with the PyTorch model: {unmatched:.0%} of the rows on {len(images)} images "
            f"have no counterpart within a relative error of {tolerance:.2g}, allowed {MOST_UNMATCHED:.0%}; nothing "
            f"was written. Report the model, or raise tolerance if you accept it"
        )
    if worst > tolerance:
        raise ExportError(
            f"the exported model disagrees with the PyTorch model: relative error {worst:.2g} on {len(images)} images, "
            f"allowed {tolerance:.2g}; nothing was written. Report the model, or raise tolerance if you accept it"
        )
    return Agreement(max_relative_error=worst, top1_agreement=agreements[0].top1_agreement, unmatched_rows=unmatched)


def _whole(images: Tensor, batch_size: int) -> int:
    """As many of the images as fill whole batches."""
    return len(images) // batch_size * batch_size
