"""Weights of squared errors in the factors of an operation, by the gradients of the model's output."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from vitrail.quantization.context import Observation
from vitrail.quantization.graph.capture import constant
from vitrail.quantization.graph.ops import QuantizedOp

TEMPER = 1.0
"""Share of the mean squared gradient that is added to each."""


def left_importance(graph_module: fx.GraphModule, op: QuantizedOp, observed: Observation, *, gradients: bool) -> Tensor:
    """Weights of squared errors in the sampled left factor, of its shape.

    Args:
        gradients: weigh by the squared gradient of the factor through this operation, where that is dense.
    """
    if not gradients or observed.gradient is None or (op.has_weight and not op.dense):
        return observed.weighted(torch.ones_like(observed.left))
    return observed.weighted(_tempered(observed.gradient @ _right(graph_module, op, observed).transpose(-1, -2)))


def right_importance(observed: Observation, *, gradients: bool) -> Tensor:
    """Weights of squared errors in the sampled right factor of a product of two activations, of its shape."""
    assert observed.right is not None
    if not gradients or observed.gradient is None:
        return observed.weighted(torch.ones_like(observed.right))
    return observed.weighted(_tempered(observed.left.transpose(-1, -2) @ observed.gradient))


def _tempered(gradient: Tensor) -> Tensor:
    """Squared gradients, and their mean beside each.

    A gradient describes small errors only: where a norm follows, the largest activations have hardly any gradient, yet
    a model that clips them fails.
    """
    squares = gradient.square()
    return squares + TEMPER * squares.mean()


def _right(graph_module: fx.GraphModule, op: QuantizedOp, observed: Observation) -> Tensor:
    if not op.has_weight:
        assert observed.right is not None
        return observed.right
    return op.matrix(constant(graph_module, op.right.node)).t()
