"""From a captured graph to an ONNX model in memory, without output on the terminal."""

from __future__ import annotations

import onnx
import torch

from vitrail.core.errors import ExportError
from vitrail.export.failure import explained
from vitrail.export.integer_form import to_integer_form
from vitrail.export.lowering import TRANSLATIONS
from vitrail.export.packing import pack_weights

OPSET = 20
"""The version of float files, which older runtimes read; integer files get another in their last pass."""


def to_onnx(program: torch.export.ExportedProgram, input_name: str, output_names: list[str]) -> onnx.ModelProto:
    """Translate a captured graph.

    Raises:
        ExportError: an operation has no ONNX counterpart; the message names it.
    """
    integers = any(node.target in TRANSLATIONS for node in program.graph.nodes)
    with explained("ONNX"):
        result = torch.onnx.export(
            program,
            input_names=[input_name],
            output_names=output_names,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            external_data=False,
            custom_translation_table=TRANSLATIONS,
        )
        assert result is not None
        model = _with_names(result.model_proto)
        if integers:
            to_integer_form(model)
            pack_weights(model)
        return model


def _with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Call the free dimensions "batch", "height" and "width", whatever symbols the exporter chose."""
    image = model.graph.input[0].type.tensor_type.shape.dim
    symbols = {image[axis].dim_param: name for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    if not image[0].dim_param:
        raise ExportError("the batch size became fixed during export; replace code that depends on it")
    _forget_origins(model)
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = symbols.get(dim.dim_param, dim.dim_param)
    return model


def _forget_origins(model: onnx.ModelProto) -> None:
    """Remove the stack traces of every node: as large as the codes of a small model, and full of the user's paths."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for part in [*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]:
        del part.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
