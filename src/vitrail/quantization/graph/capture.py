"""The graph of a model, which quantisation rewrites and export writes."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import operator
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from vitrail.core.errors import VitrailError

CHECKS = ("aten._assert_scalar.default", "aten._assert_async.msg")


def capture(
    model: nn.Module, images: Tensor, error: type[VitrailError], *, size_step: int | None = None
) -> torch.export.ExportedProgram:
    """The ``torch.export`` graph of a model in eval mode, with a free batch size.

    Args:
        model: takes normalised images (b, c, h, w) and returns one tensor; its training mode is restored.
        images: example; only its shape, dtype and device count.
        error: class of the error to raise, e.g. ``ExportError``.
        size_step: divisor of height and width, which are then free too.

    Raises:
        error: the model cannot be captured, or only for a fixed batch size.
    """
    example = torch.zeros(2, *images.shape[1:], dtype=images.dtype, device=images.device)
    free: dict[int, Any] = {0: torch.export.Dim("batch")}
    free_sizes = "batch size" if size_step is None else "batch and image size"
    if size_step is not None:
        free |= {2: size_step * torch.export.Dim("rows"), 3: size_step * torch.export.Dim("columns")}
    try:
        with quiet(), evaluating(joined(model)) as module:
            return without_checks(torch.export.export(module, (example,), dynamic_shapes=(free,)))
    except VitrailError:
        raise
    except Exception as failure:  # torch.export raises all kinds; each means the same to the user
        reason = str(failure).strip().splitlines()[0] if str(failure).strip() else type(failure).__name__
        raise error(
            f"{type(model).__name__} cannot be captured by torch.export with a free {free_sizes}: {reason}; "
            f"replace control flow that depends on tensor values or on the {free_sizes}"
        ) from failure


def joined(model: nn.Module) -> nn.Module:
    """The model as it shall run: a copy in which branches that are parallel only for training are one convolution.

    A module that has such branches says so in ``has_branches``, and ``fuse_for_inference`` joins them; other models are
    returned as they are.
    """
    if not any(getattr(module, "has_branches", False) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    found: list[Any] = [module for module in model.modules() if getattr(module, "has_branches", False)]
    for module in found:
        module.fuse_for_inference()
    return model


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode, without gradients; every module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, training in modes:
            module.training = training


def without_checks(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Without assertions that depend on values: they held for the example, and no file format has them."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if str(node.target) in CHECKS:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    return program


def module_path(node: fx.Node) -> str:
    """The module that a node was traced from, e.g. ``blocks.0.mlp.fc1``; "" for the model itself."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""


def tensor_of(graph_module: fx.GraphModule, node: Any) -> Tensor | None:
    """The parameter or buffer that a ``get_attr`` node reads; None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Any = operator.attrgetter(str(node.target))(graph_module)
    return value if isinstance(value, Tensor) else None


def constant(graph_module: fx.GraphModule, node: Any) -> Tensor:
    """The parameter or buffer that a node is known to read."""
    value = tensor_of(graph_module, node)
    assert value is not None, f"{node} is no constant"
    return value


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the tracer's and the exporter's progress lines, log records and deprecation warnings from the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
