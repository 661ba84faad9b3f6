"""A score an image: who is put before whom."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vitrail.tasks.findings.findings import Findings, Trivial
from vitrail.tasks.metrics.correlation import correlations

MOST_PAIRED = 500
"""Number of images whose pairs are compared; a hundred thousand pairs say enough."""


class RatingFindings(Findings):
    """Of distributions (b, bins) and the targets' ``score``.

    Args:
        scale: (bins,) the scores that the bins stand for.
        threshold: score above which an image counts as good.
    """

    def __init__(self, scale: Tensor, threshold: float) -> None:
        self.scale, self.threshold = scale.detach().cpu().double(), threshold
        self._predicted: list[Tensor] = []
        self._given: list[Tensor] = []

    def update(self, output: Tensor, targets: Mapping[str, Tensor]) -> None:
        self._predicted.append(output.detach().cpu().double() @ self.scale)
        self._given.append(targets["score"].cpu().double())

    @property
    def predicted(self) -> Tensor:
        """(images,)"""
        return torch.cat(self._predicted)

    @property
    def given(self) -> Tensor:
        """(images,)"""
        return torch.cat(self._given)

    def shares(self) -> tuple[Tensor, Tensor]:
        """Images that are put in the order of their given scores, half of each pair that is called equal; of all pairs
        that differ. A pair counts for both of its images."""
        right, counted = _pairs(self.predicted[:MOST_PAIRED], self.given[:MOST_PAIRED])
        return right.sum(1), counted.sum(1)

    def rescored(self, chosen: Tensor) -> dict[str, float]:
        """``srcc``, ``plcc``, ``accuracy``, ``mean_error``, and the share of the pairs; nothing where an answer is no
        number."""
        predicted, given = self.predicted[chosen], self.given[chosen]
        if not bool(predicted.isfinite().all()):
            return {}
        right, counted = _pairs(predicted[:MOST_PAIRED], given[:MOST_PAIRED])
        values = {name: float(value) for name, value in correlations(predicted, given).items()}
        values["accuracy"] = float(((predicted > self.threshold) == (given > self.threshold)).double().mean())
        values["right"] = float(right.sum() / counted.sum().clamp(min=1))
        return values | {"mean_error": float((predicted - given).abs().mean())}

    def trivial(self) -> Trivial:
        """The mean of the given scores for every image."""
        given = self.given
        good = float((given > self.threshold).double().mean())
        error = float((given - given.mean()).abs().mean())
        scores = {"srcc": 0.0, "plcc": 0.0, "accuracy": max(good, 1 - good), "mean_error": error}
        return Trivial(answer="always answering the mean score", scores=scores)

    def errors(self) -> Tensor:
        """How far the score is off."""
        return (self.predicted - self.given).abs()

    def notes(self) -> list[str]:
        rows = zip(self.predicted.tolist(), self.given.tolist(), strict=True)
        return [f"given {given:.2f}, predicted {predicted:.2f}" for predicted, given in rows]


def _pairs(predicted: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """(n, n) how right the order of each pair is, and whether the given scores differ."""
    wanted = (given.unsqueeze(1) - given).sign()
    same = (predicted.unsqueeze(1) - predicted).sign() * wanted
    return (same + 1) / 2 * wanted.abs(), wanted.abs()
