"""Core ML: iPhones, iPads and Macs, with their neural engine. Only a Mac can run the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vitrail.export.one_image import one_image_program
from vitrail.export.source import Source


def write(source: Source, file: Path) -> None:
    """Write an ``.mlpackage`` (ML Program, float32) for one image at a time.

    Raises:
        ExportError: the model cannot be captured.
    """
    import coremltools

    program = one_image_program(source.model, source.images).run_decompositions({})
    _without_aliases(program.graph_module)
    converted = coremltools.convert(
        program,
        inputs=[coremltools.TensorType(name="image", shape=(1, *source.images.shape[1:]), dtype=np.float32)],
        outputs=[coremltools.TensorType(name=source.output_name)],
        convert_to="mlprogram",
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    for name, value in source.metadata.items():
        converted.user_defined_metadata[name] = value
    converted.save(str(file))


def _without_aliases(graph_module: torch.fx.GraphModule) -> None:
    """Let users of ``alias``, which does nothing and which coremltools does not know, take its argument."""
    for node in graph_module.graph.nodes:
        if node.target is torch.ops.aten.alias.default:
            node.replace_all_uses_with(node.args[0])
    graph_module.graph.eliminate_dead_code()
