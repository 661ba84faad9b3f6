"""Promises on the files of a model: every runtime computes what PyTorch computes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from vitrail.contract.promise import Make, images_for, lively_model, promised
from vitrail.core.types import Preprocessing
from vitrail.export import export_model
from vitrail.runtimes import open_session

RUNTIMES = ("onnxruntime", "openvino")


def files_agree_at_any_batch_size(make: Make) -> None:
    """The ONNX file gives PyTorch's outputs in ONNX Runtime and OpenVINO, for one image and for five."""
    model = lively_model(make)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        about = Preprocessing(image_size=model.config.image_size)
        export_model(model, path, preprocessing=about, classes=list("abcdefghij"), images=images_for(model))
        free = [open_session(path, runtime) for runtime in RUNTIMES]
        fixed = [open_session(path, one.runtime, shape=(5, *images_for(model).shape[1:])) for one in free]
        for batch in (1, 5):
            x = images_for(model, batch)
            with torch.no_grad():
                expected = model(x).numpy()
            for session in [*free, *(fixed if batch == 5 else [])]:
                error = float(np.abs(session(x.numpy()) - expected).max() / np.abs(expected).max())
                promised(
                    error <= 1e-4, f"{session.runtime}: outputs of {batch} images differ by {error:.2g} of the largest"
                )
