"""Logistic regression of each class against all else, for images with any number of classes and unknown entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitrail.core.errors import DataError
from vitrail.training.folds import Indices, deal_folds, split_folds

NUM_FOLDS = 5
"""Folds in which the regularisation is chosen."""

MOST_STEPS = 200
"""Steps of L-BFGS."""

LEAST_SPREAD = 1e-3
"""Share of the mean spread of all features that counts as spread."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Separators:
    """A linear layer whose rows each tell one class from all else.

    Attributes:
        weight, bias: (num_classes, num_features) and (num_classes,), for features as they are.
        strength: scikit-learn's C.
        absent: classes that no training image has.
    """

    weight: Matrix
    bias: Matrix
    strength: float
    absent: tuple[int, ...]


def fit_separators(
    features: Matrix,
    targets: NDArray[np.float32],
    *,
    strengths: Sequence[float],
    groups: Indices | None = None,
    balanced: bool = False,
    seed: int = 0,
) -> Separators:
    """Minimise for each class, over its known images, what scikit-learn's ``LogisticRegression(C)`` minimises; all
    classes at once, since their sums do not touch. One C is chosen for all, by the lowest cross-entropy of images that
    are held out in turns.

    Args:
        features: (n, d); they are standardised.
        targets: (n, num_classes), 1 or 0, or below 0 where they are unknown.
        strengths: values of C in rising order; a single one is taken as it is.
        groups: (n,), images with equal numbers stay together when they are held out.
        balanced: whether images with a class have as much weight together as those without it.
        seed: seed of the folds.

    Raises:
        DataError: no image has a class, or all images have the same features.
    """
    if not (targets == 1).any():
        raise DataError(f"none of the {len(targets)} training images has a label; add images with labels")
    if features.std(axis=0).max() <= 1e-6 * np.abs(features).max():
        raise DataError(
            f"all {len(features)} training images have the same features, as equal images have; give images that differ"
        )
    strength = strengths[0]
    if len(strengths) > 1:
        folds = list(split_folds(deal_folds(np.zeros(len(targets), dtype=np.int64), NUM_FOLDS, seed, groups)))
        strength = _choose(features, targets, folds, strengths, balanced) if folds else strengths[len(strengths) // 2]
    weight, bias = _fit(features, targets, strength, balanced)
    return Separators(
        weight=weight,
        bias=bias,
        strength=strength,
        absent=tuple(np.flatnonzero(~(targets == 1).any(axis=0)).tolist()),
    )


def _choose(
    features: Matrix,
    targets: NDArray[np.float32],
    folds: Sequence[tuple[Indices, Indices]],
    strengths: Sequence[float],
    balanced: bool,
) -> float:
    """The C with the lowest cross-entropy, from strong regularisation to weak until it rises."""
    best, lowest = strengths[0], np.inf
    for strength in strengths:
        total = 0.0
        for train, held_out in folds:
            weight, bias = _fit(features[train], targets[train], strength, balanced)
            logits = torch.from_numpy(features[held_out] @ weight.T + bias)
            wanted = torch.from_numpy(targets[held_out]).double()
            total += float((_entropy(logits, wanted) * _weights(wanted, balanced)).sum())
        if total > lowest:
            break
        best, lowest = strength, total
    return best


def _entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of each entry, 0 where it is unknown."""
    known = targets >= 0
    return F.binary_cross_entropy_with_logits(logits, targets.clamp(min=0), reduction="none") * known


def _weights(targets: Tensor, balanced: bool) -> Tensor:
    """Weight of each entry."""
    if not balanced:
        return torch.ones_like(targets)
    has, lacks = targets == 1, targets == 0
    total = (has.sum(0) + lacks.sum(0)).double()
    return has * total / (2 * has.sum(0)).clamp(min=1) + lacks * total / (2 * lacks.sum(0)).clamp(min=1)


def _fit(features: Matrix, targets: NDArray[np.float32], strength: float, balanced: bool) -> tuple[Matrix, Matrix]:
    """Weight and bias for features as they are. A class that all known images have, or none, gets its share alone."""
    mean, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.maximum(spread, LEAST_SPREAD * float(spread.mean()) or 1.0)
    inputs, wanted = torch.from_numpy((features - mean) / scale), torch.from_numpy(targets).double()
    has, lacks = (wanted == 1).sum(0), (wanted == 0).sum(0)
    learnt = (has > 0) & (lacks > 0)
    bias = ((has + 0.5) / (lacks + 0.5)).log()  # of the share, never 0 or 1
    weight = torch.zeros(len(bias), inputs.shape[1], dtype=torch.float64)
    entries = _weights(wanted, balanced) * learnt
    weight.requires_grad_()
    bias.requires_grad_()
    steps = torch.optim.LBFGS(
        [weight, bias], max_iter=MOST_STEPS, history_size=20, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        steps.zero_grad()
        loss = (_entropy(inputs @ weight.T + bias, wanted) * entries).sum() / len(inputs)
        loss = loss + weight.square().sum() / (2 * strength * len(inputs))
        loss.backward()
        return loss

    with torch.enable_grad():
        steps.step(closure)
    own = weight.detach().numpy() / scale
    return own, bias.detach().numpy() - own @ mean
