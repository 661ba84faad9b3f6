"""Sets of classes that hold the right one in a stated share of all images (split conformal prediction).

Source: Vovk et al. 2005; Sadinle et al., JASA 2019, arXiv:1609.00451 ("lac"); Angelopoulos et al., ICLR 2021,
arXiv:2009.14193 ("raps"). The promise holds for images that are drawn as the calibration images were, on the average
over all of them: not for each class alone, and not for other images than these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import ConfigError

SetMethod = Literal["lac", "raps"]
"""lac: the smallest sets, empty where no class is probable enough; raps: sets that grow with the difficulty of the
image, never empty."""

FREE_RANKS, PENALTY = 2, 0.02
"""Classes of a set that cost nothing, and what each further one costs (k_reg and lambda of RAPS)."""

SLACK = 1e-6
"""What a misfit may be above the bound: the image that gave the bound is computed again in another batch, and rounded
otherwise."""

Array = NDArray[np.float64]


def check_coverage(coverage: float) -> float:
    """
    Raises:
        ConfigError: a coverage outside of (0, 1).
    """
    if not 0 < coverage < 1:
        raise ConfigError("is outside (0, 1); 0.9 holds the right class in nine of ten images", coverage=coverage)
    return coverage


def misfits(probabilities: Array, method: SetMethod) -> Array:
    """How ill each class fits an image (n, c); a set has the classes up to a bound.

    "raps" takes the probability of all classes before this one, without the random share of this one that makes the
    coverage of the paper exact: the same image has the same set, which is never empty, and the coverage is at least
    the stated one.
    """
    if method == "lac":
        return 1 - probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    cost = before + PENALTY * np.maximum(np.arange(1, probabilities.shape[1] + 1) - FREE_RANKS, 0)
    found = np.empty_like(cost)
    np.put_along_axis(found, order, cost, axis=1)
    return found


def bound_of(true_misfits: Array, coverage: float) -> float:
    """The bound with the stated coverage; infinite, so that every class is in the set, where the images are too few.

    Args:
        true_misfits: (n,) misfit of the right class of each calibration image.
        coverage: share of images whose set shall hold the right class.
    """
    rank = bound_rank(len(true_misfits), coverage)
    return math.inf if rank > len(true_misfits) else float(np.sort(true_misfits)[rank - 1])


def sets_of(fits: Array, bound: float) -> NDArray[np.bool_]:
    """Which classes (n, c) are in the sets of images, from their misfits (n, c)."""
    return fits <= bound + SLACK


def bound_rank(count: int, coverage: float) -> int:
    """The place of the bound among the misfits of ``count`` images, in rising order from 1."""
    return math.ceil((count + 1) * check_coverage(coverage) - 1e-9)


def fewest_images(coverage: float) -> int:
    """Number of calibration images below which every set has all classes."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


@dataclass(frozen=True, kw_only=True)
class SetCheck:
    """Sets of labelled images.

    Attributes:
        coverage: share of the images whose set holds the right class.
        mean_size: mean number of classes in a set.
        empty: share of the sets without any class.
        sizes: number of sets with 0, 1, 2, ... classes.
        num_images: number of images.
    """

    coverage: float
    mean_size: float
    empty: float
    sizes: tuple[int, ...]
    num_images: int


def check_sets(sets: NDArray[np.bool_], labels: NDArray[np.int64]) -> SetCheck:
    """What sets (n, c) of labelled images hold."""
    sizes = sets.sum(axis=1)
    return SetCheck(
        coverage=float(sets[np.arange(len(labels)), labels].mean()),
        mean_size=float(sizes.mean()),
        empty=float((sizes == 0).mean()),
        sizes=tuple(np.bincount(sizes).tolist()),
        num_images=len(labels),
    )


def coverage_spread(count: int, coverage: float, share: float = 0.95) -> tuple[float, float]:
    """Between which coverages ``share`` of all draws of calibration images lie: the promise is kept on the average
    over such draws, and a single one is off by chance (Beta distribution of the order statistic).

    Args:
        count: number of calibration images.
        coverage: the stated coverage.
        share: of the draws.
    """
    from scipy.stats import beta  # a second to import

    rank = bound_rank(count, coverage)
    if rank > count:
        return 1.0, 1.0
    low, high = beta.ppf([(1 - share) / 2, (1 + share) / 2], rank, count + 1 - rank)
    return float(low), float(high)
