"""ExecuTorch: PyTorch's runtime for phones and microcontrollers, computing through XNNPACK where it can."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitrail.core.types import Preprocessing
from vitrail.export.contract import Target, about, need, one_image_program, write_verified
from vitrail.export.record import ExportRecord
from vitrail.export.verify import Predictor

METHOD = "vitrail"
"""Besides ``forward``, a program has a method of this name, which returns preprocessing and classes as JSON."""

TOLERANCE = 1e-3
"""XNNPACK approximates GELU: MaxViT differs by 2.3e-4, the other families by less than 2e-6."""


def export_executorch(
    model: nn.Module,
    path: str | Path,
    *,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    images: Tensor,
    variant: str = "float",
    tolerance: float = TOLERANCE,
) -> ExportRecord:
    """Write ``model`` as a ``.pte`` program for one image at a time.

    Arguments and errors as for :func:`~vitrail.export.onnx_file.export_onnx`.

    Raises:
        MissingDependencyError: the ``executorch`` extra is not installed.
    """
    need("executorch.exir", "executorch.runtime", package="executorch", extra="executorch")
    facts = about(preprocessing, classes)
    target = Target(
        format="executorch",
        title="ExecuTorch",
        package="executorch",
        write=lambda file: _write(model, images, facts, file),
        load=_load,
        batch_size=1,
    )
    return write_verified(target, path, model, images, facts, variant=variant, tolerance=tolerance)


def _write(model: nn.Module, images: Tensor, facts: dict[str, Any], file: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = one_image_program(model, images)
    lowered = to_edge_transform_and_lower(
        program, partitioner=[XnnpackPartitioner()], constant_methods={METHOD: json.dumps(facts)}
    )
    with file.open("wb") as opened:
        lowered.to_executorch().write_to_file(opened)


def _load(file: Path) -> Predictor:
    import torch
    from executorch.runtime import Runtime

    data = file.read_bytes()
    program = Runtime.get().load_program(data)
    method = program.load_method("forward")

    # The bytes and the program are named here because the method points into them without keeping them alive.
    def predict(images: Any, _keep: Any = (data, program)) -> Any:
        # The method owns its output and overwrites it on the next call, hence the copy.
        return method.execute([torch.from_numpy(images)])[0].numpy().copy()

    return predict
