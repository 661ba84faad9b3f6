"""Core ML: iPhones, iPads and Macs, with their neural engine. Only a Mac can run the result."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.core.types import Preprocessing
from vitrail.export.contract import FLOAT_TOLERANCE, Target, about, as_json, need, one_image_program, write_verified
from vitrail.export.record import ExportRecord
from vitrail.export.verify import Predictor


def export_coreml(
    model: nn.Module,
    path: str | Path,
    *,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    images: Tensor,
    variant: str = "float",
    tolerance: float = FLOAT_TOLERANCE,
) -> ExportRecord:
    """Write ``model`` as an ``.mlpackage`` (ML Program, float32) for one image at a time.

    Arguments and errors as for :func:`~vitrail.export.onnx_file.export_onnx`. Off a Mac it is converted and not run:
    the record then has ``verified`` false and no figures.

    Raises:
        MissingDependencyError: the ``coreml`` extra is not installed.
    """
    need("coremltools", package="coremltools", extra="coreml")
    facts = about(preprocessing, classes)
    target = Target(
        format="coreml",
        title="Core ML",
        package="coremltools",
        write=lambda file: _write(model, images, facts, file),
        load=_load if platform.system() == "Darwin" else None,
        batch_size=1,
    )
    return write_verified(target, path, model, images, facts, variant=variant, tolerance=tolerance)


def _write(model: nn.Module, images: Tensor, facts: dict[str, Any], file: Path) -> None:
    import coremltools

    program = one_image_program(model, images).run_decompositions({})
    _without_aliases(program.graph_module)
    converted = coremltools.convert(
        program,
        inputs=[coremltools.TensorType(name="image", shape=(1, *images.shape[1:]), dtype=np.float32)],
        outputs=[coremltools.TensorType(name=getattr(model, "output_name", "logits"))],
        convert_to="mlprogram",
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    for name, value in as_json(facts).items():
        converted.user_defined_metadata[name] = value
    converted.save(str(file))


def _without_aliases(graph_module: torch.fx.GraphModule) -> None:
    """Let users of ``alias``, which does nothing and which coremltools does not know, take its argument."""
    for node in graph_module.graph.nodes:
        if node.target is torch.ops.aten.alias.default:
            node.replace_all_uses_with(node.args[0])
    graph_module.graph.eliminate_dead_code()


def _load(file: Path) -> Predictor:
    import coremltools

    model = coremltools.models.MLModel(str(file))
    return lambda images: next(iter(model.predict({"image": images}).values()))
