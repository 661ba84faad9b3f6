"""A file is believed only after it was run: its outputs against the model's, on real images, at two batch sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from vitrail.core.errors import ExportError

BATCH_SIZE = 16
"""Images that go through the file at once; a second pass takes them one by one."""

SINGLES = 4
"""Images of the second pass: enough to meet a batch size that was frozen into the file."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two lists of outputs are apart, see :class:`~vitrail.export.record.ExportRecord`."""

    max_relative_error: float
    top1_agreement: float


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


def file_outputs(model_bytes: bytes, images: Tensor, batch_size: int) -> np.ndarray:
    """Outputs (n, ...) of an ONNX model in ONNX Runtime on the CPU.

    Raises:
        ExportError: ONNX Runtime cannot load it, or cannot run it at that batch size.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        arrays = [batch.cpu().numpy() for batch in images.split(batch_size)]
        return np.concatenate([session.run(None, {name: array})[0] for array in arrays])
    except Exception as failure:  # ONNX Runtime's exception classes have no public common base
        raise ExportError(
            f"ONNX Runtime cannot run the exported model at batch size {batch_size}: {str(failure).splitlines()[0]}; "
            f"nothing was written"
        ) from failure


def verify(model_bytes: bytes, model: nn.Module, images: Tensor, tolerance: float) -> Agreement:
    """Run the file on all images in batches and on a few one by one, and compare with the model.

    Raises:
        ExportError: it does not run, or disagrees by more than ``tolerance`` (relative).
    """
    reference = model_outputs(model, images)
    agreement = compare(file_outputs(model_bytes, images, BATCH_SIZE), reference)
    singles = compare(file_outputs(model_bytes, images[:SINGLES], 1), reference[:SINGLES])
    worst = max(agreement.max_relative_error, singles.max_relative_error)
    if worst > tolerance:
        raise ExportError(
            f"the exported model disagrees with the PyTorch model: relative error {worst:.2g} on {len(images)} images, "
            f"allowed {tolerance:.2g}; nothing was written. Report the model, or raise tolerance if you accept it"
        )
    return Agreement(max_relative_error=worst, top1_agreement=agreement.top1_agreement)
