"""From a captured graph to an ONNX model in memory, without a word on the terminal."""

from __future__ import annotations

import re

import onnx
import torch

from vitrail.core.errors import ExportError
from vitrail.export.lowering import TRANSLATIONS
from vitrail.quantization.graph import quiet

OPSET = 20
"""The newest one that every runtime of ours reads; at 21 ONNX Runtime 1.31 refuses signed 8-bit activations."""


def to_onnx(program: torch.export.ExportedProgram, input_name: str, output_name: str) -> onnx.ModelProto:
    """Translate a captured graph.

    Raises:
        ExportError: an operation has no ONNX counterpart; the message names it.
    """
    try:
        with quiet():
            result = torch.onnx.export(
                program,
                input_names=[input_name],
                output_names=[output_name],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                external_data=False,
                custom_translation_table=TRANSLATIONS,
            )
            assert result is not None
            return _with_batch_name(result.model_proto)
    except Exception as failure:  # the exporter raises all kinds; each means the same to the user
        raise ExportError(_explain(failure)) from failure


def _with_batch_name(model: onnx.ModelProto) -> onnx.ModelProto:
    """Call the free dimension "batch", whatever symbol the exporter chose."""
    symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    if not symbol:
        raise ExportError("the batch size became fixed during export; replace code that depends on it")
    _forget_origins(model)
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == symbol:
                dim.dim_param = "batch"
    return model


def _forget_origins(model: onnx.ModelProto) -> None:
    """Remove the stack traces of every node: as large as the codes of a small model, and full of the user's paths."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for part in [*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]:
        del part.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]


def _explain(failure: BaseException) -> str:
    """One line that names the operation at fault, found in the chain of causes."""
    chain, cause = [], failure
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    if isinstance(failure, ExportError):
        return str(failure)
    for error in reversed(chain):
        found = re.search(r"op='([\w.:]+)'|((?:aten|torchvision|prims)[.:]+[\w.]+)", str(error))
        if found:
            return (
                f"operation {found[1] or found[2]} has no ONNX counterpart; replace it in the model by simpler "
                f"operations (nothing was written)"
            )
    lines = str(chain[-1]).strip().splitlines()
    return (
        f"the model cannot be exported to ONNX: {lines[0] if lines else type(chain[-1]).__name__} (nothing was written)"
    )
