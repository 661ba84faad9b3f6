"""Temperature scaling: logits divided by one number, so that a confidence of 80 % is right in 80 of 100 cases.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599. The order of the classes,
hence every accuracy, stays as it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import DataError
from vitrail.evaluation.classification import NUM_BINS, ConfidenceBin, confidence_bins
from vitrail.evaluation.statistics import CONFIDENCE, NUM_RESAMPLES, Interval

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures between which the best one is searched."""

PRIOR_SPREAD = 0.5
"""Standard deviation of the logarithm of the temperature before any image is seen: a handful of images that are all
right would otherwise make every answer certain. From a hundred images on it changes the third digit."""

MOST_DRAWN = 1_000_000
"""Images that are drawn at once, for all resamples together."""

Logits = NDArray[np.float64]
"""(images, classes)"""

Labels = NDArray[np.int64]
"""(images,)"""


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature under which labels are most probable.

    Args:
        logits: (n, c), of images that the model was not fitted to.
        labels: (n,), class indices.

    Raises:
        DataError: there are no images, or logits are not finite.
    """
    from scipy.optimize import minimize_scalar  # half a second to import, which most commands need not wait for

    require_logits(logits)

    def cost(log_temperature: float) -> float:
        prior = (log_temperature / PRIOR_SPREAD) ** 2 / (2 * len(labels))
        return mean_loss(logits / math.exp(log_temperature), labels) + prior

    found: Any = minimize_scalar(cost, bounds=(math.log(LOWEST), math.log(HIGHEST)), method="bounded")
    return math.exp(float(found.x))


def require_logits(logits: Logits) -> None:
    """
    Raises:
        DataError: there are no images, or logits are not finite.
    """
    if not len(logits):
        raise DataError("there are no images to fit probabilities on; give validation images")
    if not np.isfinite(logits).all():
        raise DataError("the model gives logits that are not finite; train it again, or use other weights")


def probabilities_of(logits: Logits, temperature: float = 1.0) -> NDArray[np.float64]:
    """Softmax (n, c) of logits over a temperature."""
    scaled = logits / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def mean_loss(logits: Logits, labels: Labels) -> float:
    """Mean cross-entropy in nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]).mean())


def bins_of(probabilities: NDArray[np.float64], labels: Labels) -> tuple[ConfidenceBin, ...]:
    """Confidence and accuracy of images, by confidence."""
    confidence, right = _judged(probabilities, labels)
    return confidence_bins(Tensor(confidence).double(), torch.from_numpy(right))


def calibration_error(probabilities: NDArray[np.float64], labels: Labels, *, seed: int = 0) -> Interval:
    """The expected calibration error over :data:`~vitrail.evaluation.classification.NUM_BINS` bins of equal width, with
    an interval over draws of images.

    The error of few images is too large: with 100 images a model that is perfectly calibrated shows some points. That
    of draws of them is larger still, by which the interval is moved back.

    Args:
        probabilities: (n, c).
        labels: (n,).
        seed: of the draws.
    """
    confidence, right = _judged(probabilities, labels)
    place = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    gaps = np.zeros((len(labels), NUM_BINS))
    gaps[np.arange(len(labels)), place] = confidence - right
    random, count = np.random.default_rng(seed), len(labels)
    step = min(MOST_DRAWN // count + 1, NUM_RESAMPLES)
    errors = np.concatenate(
        [
            np.abs(random.multinomial(count, np.full(count, 1 / count), step) @ gaps).sum(axis=1)
            for _ in range(0, NUM_RESAMPLES, step)
        ]
    )
    errors /= count
    error = float(np.abs(gaps.sum(axis=0)).sum() / count)
    low, high = np.quantile(errors - errors.mean() + error, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean=error, low=max(float(low), 0.0), high=float(high))


def _judged(probabilities: NDArray[np.float64], labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Confidence (n,), and 1 or 0 for right or wrong (n,)."""
    return probabilities.max(axis=1), (probabilities.argmax(axis=1) == labels).astype(np.float64)
