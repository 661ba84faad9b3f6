"""How sure a difference is: exact tests and bootstrap intervals, the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import ConfigError

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its :data:`CONFIDENCE` interval."""

    mean: float
    low: float
    high: float


def mcnemar_exact(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Two-sided exact p of McNemar's test (Psychometrika 1947): are two classifiers right equally often?

    Only images that exactly one of them has right count; if they are equally good, each is as likely the one.

    Args:
        first, second: (images,), whether each was right, on the same images.

    Raises:
        ConfigError: the numbers of images differ.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ConfigError(f"McNemar's test needs the same images twice; got shapes {first.shape} and {second.shape}")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    count = only_first + only_second
    tail = sum(comb(count, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**count)


def bootstrap(values: Values, *, seed: int = 0, resamples: int = NUM_RESAMPLES) -> Interval:
    """The mean over all of (seeds, images), and a percentile interval.

    Where there are several seeds, seeds are drawn with replacement and then images, the same for all seeds, because
    both would be others if the experiment were repeated. With few seeds it is too narrow: three seeds can show only
    27 different draws.

    Args:
        values: (seeds, images), such as 0 and 1 for wrong and right, or the difference of two models' ones.
        seed: of the draws.
        resamples: how many.

    Raises:
        ConfigError: there are no values.
    """
    if values.ndim != 2 or values.size == 0:
        raise ConfigError(f"a bootstrap needs values of shape (seeds, images), at least one; got {values.shape}")
    draw = np.random.default_rng(seed)
    seeds, images = values.shape
    chosen_images = draw.integers(0, images, (resamples, images))
    weights = np.stack([np.bincount(chosen, minlength=images) for chosen in chosen_images]) / images
    by_seed = weights @ values.T  # (resamples, seeds)
    chosen_seeds = draw.integers(0, seeds, (resamples, seeds))
    means = np.take_along_axis(by_seed, chosen_seeds, axis=1).mean(1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))


def wilson(right: float, count: int) -> Interval:
    """The interval of a share, from how many of ``count`` independent answers are right.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927. It is never
    empty, not even where all or none are right.

    Args:
        right: number of right answers, from 0 to ``count``.
        count: number of answers, 1 or more.

    Raises:
        ConfigError: there are no answers.
    """
    if count < 1:
        raise ConfigError(f"an interval needs answers; got {count}")
    share, z = right / count, NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return Interval(mean=share, low=max(middle - reach, 0.0), high=min(middle + reach, 1.0))


def ratio_interval(counts: Values, totals: Values, *, seed: int = 0, resamples: int = NUM_RESAMPLES) -> Interval:
    """A share of what many images hold, and a percentile interval over draws of whole images.

    Args:
        counts, totals: (images,) how many are right in each image, and of how many.
        seed: of the draws.
        resamples: how many.

    Raises:
        ConfigError: the numbers of images differ, or there is nothing in any image.
    """
    if counts.shape != totals.shape or counts.ndim != 1 or not totals.sum():
        raise ConfigError(f"a share needs counts and totals of images; got {counts.shape} and {totals.shape}")
    draw = np.random.default_rng(seed)
    images, ratios = len(counts), []
    for _ in range(resamples):
        chosen = np.bincount(draw.integers(0, images, images), minlength=images)
        if total := float(chosen @ totals):
            ratios.append(float(chosen @ counts) / total)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean=float(counts.sum() / totals.sum()), low=float(low), high=float(high))
