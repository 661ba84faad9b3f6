"""How much the model's output feels an error in a product's factors: weights for the choice of their codes."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from vitrail.quantization.calibration import Observation
from vitrail.quantization.graph import tensor_of
from vitrail.quantization.sites import Site

TEMPER = 1.0
"""Share of the mean squared gradient that is added to each."""


def left_importance(graph_module: fx.GraphModule, site: Site, seen: Observation, *, gradients: bool) -> Tensor:
    """Weights of squared errors in the sampled left factor, of its shape.

    Args:
        gradients: weigh by what the output feels through this product, where the operation is dense.
    """
    if not gradients or seen.gradient is None or (site.weighted and not site.dense):
        return seen.weighted(torch.ones_like(seen.left))
    return seen.weighted(_tempered(seen.gradient @ _right(graph_module, site, seen).transpose(-1, -2)))


def right_importance(seen: Observation, *, gradients: bool) -> Tensor:
    """Weights of squared errors in the sampled right factor of a product of two activations, of its shape."""
    assert seen.right is not None
    if not gradients or seen.gradient is None:
        return seen.weighted(torch.ones_like(seen.right))
    return seen.weighted(_tempered(seen.left.transpose(-1, -2) @ seen.gradient))


def _tempered(gradient: Tensor) -> Tensor:
    """Squared gradients, and their mean beside each.

    They speak of small errors only: where a norm follows, the largest activations have hardly any gradient, yet the
    model is lost without them.
    """
    squares = gradient.square()
    return squares + TEMPER * squares.mean()


def _right(graph_module: fx.GraphModule, site: Site, seen: Observation) -> Tensor:
    if not site.weighted:
        assert seen.right is not None
        return seen.right
    weight = tensor_of(graph_module, site.right.node)
    assert weight is not None
    return site.matrix(weight).t()
