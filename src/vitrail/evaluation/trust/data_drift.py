"""Data drift: do new images differ from those that a model was validated on, by more than chance?

Each statistic is a two-sample test: a permutation test of the maximum mean discrepancy (Gretton et al., JMLR 2012) for
the features, a permutation test of chi-square for the classes that are answered, and Kolmogorov and Smirnov's test for
one number an image. The least p of all is multiplied by the number of tests (Bonferroni), so that images like those of
the validation are called different in at most :data:`LEVEL` of all draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""Share of draws of like images that are wrongly called different."""

PERMUTATIONS = 999

MOST_COMPARED = 500
"""Images of each side in the test of the features, which compares all pairs; the others are drawn by seed."""

FEWEST = 10
"""Images below which no difference can be told from chance."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What is known of images, one entry an image.

    Attributes:
        features: (n, d), pooled features of the backbone.
        numbers: name -> (n,), such as "brightness".
        answers: (n,), class indices that were answered; None where a model answers no class.
    """

    features: NDArray[np.float32]
    numbers: Mapping[str, Array]
    answers: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def taken(self, indices: NDArray[np.int64]) -> Self:
        """The images at ``indices``, in that order."""
        answers = None if self.answers is None else self.answers[indices]
        numbers = {name: values[indices] for name, values in self.numbers.items()}
        return replace(self, features=self.features[indices], numbers=numbers, answers=answers)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A statistic of two sets of images.

    Attributes:
        name: "features", "answers", or the name of a number.
        p: probability of such a difference between like images, multiplied by the number of tests, at most 1.
        before: median of the first set; None for statistics that are no number.
        now: median of the second set.
    """

    name: str
    p: float
    before: float | None = None
    now: float | None = None

    @property
    def found(self) -> bool:
        """Whether it is more than chance."""
        return self.p < LEVEL


def differences(before: Seen, now: Seen, *, num_classes: int = 0, seed: int = 0) -> list[Difference]:
    """The difference of two sets of images in each statistic that both have.

    Args:
        before: images that the model was validated on.
        now: new images.
        num_classes: number of classes of the answers.
        seed: of permutations and draws.
    """
    from scipy.stats import ks_2samp  # a second to import

    found: list[tuple[str, float, float | None, float | None]] = []
    found.append(("features", feature_p(before.features, now.features, seed=seed), None, None))
    if before.answers is not None and now.answers is not None:
        counts = [np.bincount(answers, minlength=num_classes) for answers in (before.answers, now.answers)]
        found.append(("answers", answer_p(*counts, seed=seed), None, None))
    for name, values in before.numbers.items():
        if name in now.numbers:
            p = float(ks_2samp(values, now.numbers[name]).pvalue)
            found.append((name, p, float(np.median(values)), float(np.median(now.numbers[name]))))
    return [
        Difference(name=name, p=min(p * len(found), 1.0), before=first, now=second) for name, p, first, second in found
    ]


def feature_p(before: NDArray[np.float32], now: NDArray[np.float32], *, seed: int = 0) -> float:
    """The p of features (n, d) and (m, d), from permutations of the maximum mean discrepancy.

    The kernel is Gaussian. Its width is the median distance of all pairs.
    """
    random = np.random.default_rng(seed)
    first, second = (_some(np.asarray(one, np.float64), random) for one in (before, now))
    both = np.concatenate([first, second])
    both = (both - both.mean(axis=0)) / max(float(both.std()), 1e-12)
    squares = (both**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * both @ both.T, 0)
    pairs = distances[np.triu_indices(len(both), 1)]
    width = float(np.median(pairs)) or float(pairs.mean())  # where more than half of the pairs are equal images
    if width <= 0:
        return 1.0
    kernel = np.exp(-distances / width)
    side = np.concatenate([np.full(len(first), 1 / len(first)), np.full(len(second), -1 / len(second))])
    draws = random.permuted(np.tile(side, (PERMUTATIONS, 1)), axis=1)
    return _p(float(side @ kernel @ side), ((draws @ kernel) * draws).sum(axis=1))


def answer_p(before: NDArray[np.int64], now: NDArray[np.int64], *, seed: int = 0) -> float:
    """The p of two rows of counts (c,), from permutations of chi-square."""
    total = before + now
    if (total > 0).sum() < 2:
        return 1.0
    expected = total[total > 0] * (now.sum() / total.sum())
    draws = np.random.default_rng(seed).multivariate_hypergeometric(total, int(now.sum()), PERMUTATIONS)

    def chi_square(counts: NDArray[np.int64]) -> Array:
        distance: Array = ((counts[..., total > 0] - expected) ** 2 / expected).sum(axis=-1)
        return distance

    return _p(float(chi_square(now)), chi_square(draws))


def _some(features: Array, random: np.random.Generator) -> Array:
    """All features, or a draw of them."""
    if len(features) <= MOST_COMPARED:
        return features
    return features[random.choice(len(features), MOST_COMPARED, replace=False)]


def _p(value: float, draws: Array) -> float:
    """Share of the draws, and of the value itself, that are at least as large as it."""
    close = draws >= value - 1e-12 * max(abs(value), 1.0)
    return (1 + int(close.sum())) / (1 + len(draws))


def answer_shares(answers: NDArray[np.int64], classes: Sequence[str]) -> dict[str, float]:
    """Share of the images that each class was answered for."""
    counts = np.bincount(answers, minlength=len(classes))
    return {name: float(count) / len(answers) for name, count in zip(classes, counts, strict=True)}
