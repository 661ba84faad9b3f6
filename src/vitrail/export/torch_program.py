"""``torch.export``: the captured graph with its weights, for compilers that start from it."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from vitrail.core.errors import ExportError
from vitrail.export.source import Source
from vitrail.quantization import capture

EXTRA = "vitrail.json"
"""Name of preprocessing and classes inside the archive, see ``extra_files`` of :func:`torch.export.load`."""


def write(source: Source, file: Path) -> None:
    """Write a ``.pt2`` program with a free batch size; ``torch.export.load(path).module()`` runs it. With an
    outlier score it returns a dictionary of both outputs.

    Raises:
        ExportError: the model cannot be captured.
    """
    program = capture(source.written, source.images, ExportError)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # full of the user's folders
    torch.export.save(program, file, extra_files={EXTRA: json.dumps(source.facts, ensure_ascii=False)})
