"""The outlier score as a second output of a file, beside the logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.evaluation.trust.outlier_score import OutlierScore
from vitrail.export.model_outputs import BATCH_SIZE
from vitrail.quantization.graph.capture import evaluating
from vitrail.tasks import Task

OUTLIER_OUTPUT = "outlier_score"
"""Name of the second output."""

SLACK = 1e-4
"""What a score may be above the threshold, as a share of it or of 1: the threshold is the score of a validation image,
which other kernels round otherwise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OutlierOutput:
    """What a second output is made of.

    Attributes:
        score: from features and logits to a score.
        threshold: score above which an image is unusual.
    """

    score: OutlierScore
    threshold: float

    @property
    def facts(self) -> dict[str, str | float]:
        """What a file says of it, as ``outlier_score`` of its task."""
        return {"output": OUTLIER_OUTPUT, "unusual_above": self.threshold + SLACK * max(abs(self.threshold), 1.0)}


class WithOutlierScore(nn.Module):
    """A classifier that gives its logits and a score, by name.

    Args:
        task: the classifier; its logits are divided by its temperature, and the score takes them as they were before.
        score: what ``vitrail trust`` fitted for it.
    """

    whitening: Tensor
    middle: Tensor
    centres: Tensor
    squares: Tensor

    def __init__(self, task: Task, score: OutlierScore) -> None:
        super().__init__()
        self.task, self.scale = task, score.scale
        # Distances are the same from any origin. From the middle of the classes, squares stay small enough for float32.
        middle = score.centres.astype(np.float64).mean(axis=0)
        self.register_buffer("whitening", torch.from_numpy(score.whitening.astype(np.float32)))
        self.register_buffer("middle", torch.from_numpy(middle.astype(np.float32)))
        centres = torch.from_numpy((score.centres - middle).astype(np.float32))
        self.register_buffer("centres", centres)
        self.register_buffer("squares", centres.square().sum(1))

    @property
    def backbone(self) -> nn.Module:
        """The model that decides which image sizes are taken."""
        return self.task.backbone

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images (b, c, h, w) to logits (b, classes) and scores (b,)."""
        output, features = self.task.with_features(images)
        white = features @ self.whitening - self.middle
        squares = white.square().sum(1, keepdim=True) + self.squares - 2 * white @ self.centres.T
        score = squares.amin(1).clamp(min=0).sqrt()
        if self.scale:
            logits = output * self.task.temperature
            highest = logits.amax(1, keepdim=True)
            energy = -highest[:, 0] - (logits - highest).exp().sum(1).log()
            score = self.scale * score + energy
        return {self.task.output_name: output, OUTLIER_OUTPUT: score}


def outlier_scores(task: Task, score: OutlierScore, images: Tensor) -> tuple[NDArray[np.float64], float]:
    """The scores (n,) that ``vitrail predict`` gives images (n, c, h, w), and how large the numbers are that they are a
    sum of."""
    with evaluating(task):
        seen = [task.with_features(batch) for batch in images.split(BATCH_SIZE)]
    logits = torch.cat([output for output, _ in seen]).double().cpu().numpy() * task.temperature
    features = torch.cat([features for _, features in seen]).float().cpu().numpy()
    scores = score(features, logits)
    return scores, float(max(np.abs(scores).max(), np.abs(logits).max()))
