"""Corrections for quantised inputs: the moments of a layer's inputs, and ridge regression of its weight on them.

Sources: ridge regression of the weights on quantised inputs as in ERQ, arXiv:2407.06794; the mean of the output error
into the bias as in data-free quantisation, arXiv:1906.04721.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (0.03, 0.3, 3.0)
"""Strengths of the ridge, as shares of the mean squared input, that are tried."""


@dataclass
class Rows:
    """Inputs of a layer from one batch: float x and quantised z, (n, d), and the sample weight of each row, (n,)."""

    exact: Tensor
    quantized: Tensor
    sample_weight: Tensor


@dataclass
class Moments:
    """Weighted second moments of a layer's inputs, float x and quantised z of width d.

    Attributes:
        gram: mean z^T z, (d, d).
        cross: mean (x - z)^T z, (d, d).
        mean, mean_quantized: means of x and of z, (d,).
    """

    gram: Tensor
    cross: Tensor
    mean: Tensor
    mean_quantized: Tensor

    @classmethod
    def of(cls, batches: list[Rows]) -> Moments:
        """Over all batches."""
        width = batches[0].exact.shape[1]
        gram, cross = torch.zeros(width, width), torch.zeros(width, width)
        mean, mean_quantized = torch.zeros(width), torch.zeros(width)
        total = sum(float(rows.sample_weight.sum()) for rows in batches)
        for rows in batches:
            weighted = rows.quantized * rows.sample_weight[:, None]
            gram += weighted.t() @ rows.quantized / total
            cross += (rows.exact - rows.quantized).t() @ weighted / total
            mean += rows.sample_weight @ rows.exact / total
            mean_quantized += weighted.sum(0) / total
        return cls(gram=gram, cross=cross, mean=mean, mean_quantized=mean_quantized)


def ridge_target(matrix: Tensor, moments: Moments, strength: float) -> Tensor:
    """The weight that gives, from quantised inputs, the float outputs best, kept near the float weight.

    It minimises mean |W x - V z|^2 + r |V - W|^2 over V, with r = ``strength`` times the mean squared input.
    """
    size = len(moments.gram)
    ridge = strength * moments.gram.diagonal().mean() * torch.eye(size)
    correction = torch.linalg.solve((moments.gram + ridge).double(), moments.cross.t().double()).float()
    return matrix + matrix @ correction.t()


def output_error(matrix: Tensor, approximate: Tensor, correction: Tensor | None, batches: list[Rows]) -> float:
    """The squared error of a layer's outputs, (n, outputs), summed over the batches.

    Args:
        matrix: float weight (outputs, d).
        approximate: quantised weight (outputs, d).
        correction: addend of the outputs, (outputs,).
        batches: inputs of the layer.
    """
    total = 0.0
    for rows in batches:
        difference = rows.exact @ matrix.t() - rows.quantized @ approximate.t()
        if correction is not None:
            difference -= correction
        total += float(difference.square_().sum(1).double() @ rows.sample_weight.double())
    return total
