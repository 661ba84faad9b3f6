"""How far a file's outputs are from the model's, on real images, at every batch size that the file takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.core.errors import ExportError
from vitrail.runtimes.alike import MOST_UNMATCHED, Agreement, compare

Predictor = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Normalised images (b, c, h, w) to outputs (b, ...)."""

BATCH_SIZE = 16
"""Images that go through the file at once, where it takes any number of them."""

SINGLES = 4
"""Images that go through such a file one by one too, which shows a batch size that was fixed during export."""


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
            f"{runtime} cannot run the exported model at batch size {batch_size}, {size} pixels: {reason}"
        ) from failure


def agreement_of(
    predict: Predictor, model: nn.Module, images: Tensor, *, tolerance: float, batch_size: int | None, runtime: str
) -> Agreement:
    """Run the file on all images, and compare with the model.

    Args:
        predict: the loaded file.
        model: the model that it was made from; one that has ``row_parts`` is compared by
            :func:`~vitrail.runtimes.alike.compare_sets`.
        images: normalised images (n, c, h, w).
        tolerance: largest relative error of two rows that are the same.
        batch_size: the only batch size of the file; None if it takes any: then batches and single images are tried.
        runtime: the program that runs the file, for messages.

    Raises:
        ExportError: it does not run.
    """
    reference = model_outputs(model, images)
    parts = getattr(model, "row_parts", ())
    passes: Sequence[tuple[int, int]] = (
        [(BATCH_SIZE, len(images)), (1, SINGLES)] if batch_size is None else [(batch_size, _whole(images, batch_size))]
    )
    agreements = []
    for size, count in passes:
        outputs = file_outputs(predict, images[:count], size, runtime)
        agreements.append(compare(outputs, reference[:count], tolerance, parts))
    return Agreement(
        max_relative_error=max(agreement.max_relative_error for agreement in agreements),
        top1_agreement=agreements[0].top1_agreement,
        unmatched_rows=max(agreement.unmatched_rows for agreement in agreements),
    )


def complaint(agreement: Agreement, num_images: int, tolerance: float) -> str:
    """What is wrong with an agreement; empty if it is within ``tolerance`` and ``MOST_UNMATCHED``."""
    if agreement.unmatched_rows > MOST_UNMATCHED:
        return (
            f"the exported model disagrees with the PyTorch model: {agreement.unmatched_rows:.0%} of the rows on "
            f"{num_images} images have no counterpart within a relative error of {tolerance:.2g}, allowed "
            f"{MOST_UNMATCHED:.0%}"
        )
    if agreement.max_relative_error > tolerance:
        return (
            f"the exported model disagrees with the PyTorch model: relative error {agreement.max_relative_error:.2g} "
            f"on {num_images} images, allowed {tolerance:.2g}"
        )
    return ""


def _whole(images: Tensor, batch_size: int) -> int:
    """As many of the images as fill whole batches."""
    return len(images) // batch_size * batch_size
