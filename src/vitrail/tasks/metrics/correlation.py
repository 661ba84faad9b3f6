"""Correlation and accuracy of predicted scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef
from torchmetrics.utilities import dim_zero_cat


class ScoreMetric(Metric):
    """``plcc`` (Pearson), ``srcc`` (Spearman), ``accuracy`` and ``mean_error``, over all images.

    A model that gives every image the same score ranks nothing: both correlations are then 0.

    Args:
        scale: the scores that the bins stand for.
        threshold: an answer is right if it is on the same side of it as people's mean.
    """

    full_state_update = False
    predicted: list[Tensor]
    given: list[Tensor]

    def __init__(self, scale: Sequence[float], threshold: float) -> None:
        super().__init__()
        self.scale = torch.tensor(scale)
        self.threshold = threshold
        self.add_state("predicted", [], dist_reduce_fx="cat")
        self.add_state("given", [], dist_reduce_fx="cat")

    def update(self, output: Tensor, targets: Mapping[str, Tensor]) -> None:
        """Distributions (b, bins) and the targets of the batch."""
        self.predicted.append(output.detach().float() @ self.scale.to(output.device))
        self.given.append(targets["score"].float())

    def compute(self) -> dict[str, Tensor]:
        """Each a scalar."""
        predicted, given = dim_zero_cat(self.predicted), dim_zero_cat(self.given).to(dim_zero_cat(self.predicted))
        values = correlations(predicted, given)
        values["accuracy"] = ((predicted > self.threshold) == (given > self.threshold)).float().mean()
        values["mean_error"] = (predicted - given).abs().mean()
        return values


def correlations(predicted: Tensor, given: Tensor) -> dict[str, Tensor]:
    """``plcc`` and ``srcc`` of two vectors; 0 where one of them is constant."""
    if len(predicted) < 2 or predicted.std() < 1e-6 or given.std() < 1e-6:
        return {"plcc": torch.tensor(0.0), "srcc": torch.tensor(0.0)}
    predicted, given = predicted.double(), given.double()
    return {"plcc": pearson_corrcoef(predicted, given), "srcc": spearman_corrcoef(predicted, given)}
