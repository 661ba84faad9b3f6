"""``torch.export``: the captured graph with its weights, for whatever of PyTorch's world compiles it further."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.core.errors import ExportError
from vitrail.core.types import Preprocessing
from vitrail.export.contract import FLOAT_TOLERANCE, Target, about, torch_predictor, write_verified
from vitrail.export.record import ExportRecord
from vitrail.export.verify import Predictor
from vitrail.quantization import capture

EXTRA = "vitrail.json"
"""Name of preprocessing and classes inside the archive, see ``extra_files`` of :func:`torch.export.load`."""


def export_torch(
    model: nn.Module,
    path: str | Path,
    *,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    images: Tensor,
    variant: str = "float",
    tolerance: float = FLOAT_TOLERANCE,
) -> ExportRecord:
    """Write ``model`` as a ``.pt2`` program with a free batch size; ``torch.export.load(path).module()`` runs it.

    Arguments and errors as for :func:`~vitrail.export.onnx_file.export_onnx`.
    """
    facts = about(preprocessing, classes)
    target = Target(
        format="torch-export",
        title="PyTorch",
        package="torch",
        write=lambda file: _write(model, images, facts, file),
        load=_load,
    )
    return write_verified(target, path, model, images, facts, variant=variant, tolerance=tolerance)


def _write(model: nn.Module, images: Tensor, facts: dict[str, Any], file: Path) -> None:
    program = capture(model, images, ExportError)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # full of the user's folders
    torch.export.save(program, file, extra_files={EXTRA: json.dumps(facts, ensure_ascii=False)})


def _load(file: Path) -> Predictor:
    return torch_predictor(torch.export.load(file).module())
