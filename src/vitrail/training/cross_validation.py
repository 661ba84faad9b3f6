"""How well a frozen backbone's features tell classes apart: cross-validated, and over the number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitrail.training.embedding import Features
from vitrail.training.folds import Indices, deal_folds, draw_of_each_class, split_folds
from vitrail.training.linear_probe import STRENGTHS, ClassWeights, LinearHead, fit_linear_head

NUM_FOLDS = 5
"""Folds of each repetition."""

NEIGHBOURS = (1, 3, 5, 10, 20)
"""Numbers of neighbours that are tried."""

NESTED_UP_TO = 200
"""Images up to which the regularisation is chosen inside every fold. With more, one number chosen once among all
training images is no advantage that could be seen, and takes a thirtieth of the time."""

CLOSE = 1.3
"""Factor between numbers of labels below which a point of a learning curve would say nothing new."""

UNJUDGED = -1
"""Answer to an image that was trained on in every fold."""


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """Answers to images by probes that have not seen them.

    Attributes:
        labels: (n,), the classes of the images.
        linear: (repetitions, n), class that the linear probe answers, or :data:`UNJUDGED`.
        nearest: (repetitions, n), the same of the nearest neighbours.
        neighbours: number of neighbours that was chosen most often; 0 where no image is judged.
        confidence: (n,), probability of the linear probe's first answer; 0 where an image is not judged.
    """

    labels: Indices
    linear: Indices
    nearest: Indices
    neighbours: int
    confidence: NDArray[np.float64]

    @property
    def judged(self) -> NDArray[np.bool_]:
        """(n,), whether an image was held out."""
        return self.linear[0] != UNJUDGED

    def right(self, answers: Indices) -> NDArray[np.float64]:
        """(repetitions, judged images), 1 where an answer is right and 0 where it is wrong."""
        return (answers == self.labels)[:, self.judged].astype(np.float64)


def cross_validate(  # long: half of it is arguments
    features: Features,
    labels: Indices,
    num_classes: int,
    *,
    groups: Indices,
    strength: float,
    class_weights: ClassWeights = "none",
    repetitions: int = 2,
    seed: int = 0,
) -> CrossValidation:
    """Answer each image by a linear probe and by its nearest neighbours, without having seen it or a copy of it.

    Args:
        features: (n, d).
        labels: (n,), class indices.
        num_classes: number of classes.
        groups: (n,), images with equal numbers stay in one fold.
        strength: regularisation that :func:`~vitrail.training.linear_probe.fit_linear_head` chose for all images.
        class_weights: as for the probe.
        repetitions: number of times that the images are dealt anew.
        seed: seed of the folds.
    """
    strengths = STRENGTHS if len(labels) <= NESTED_UP_TO else (strength,)
    linear = np.full((repetitions, len(labels)), UNJUDGED, dtype=np.int64)
    nearest, confidence, chosen = linear.copy(), np.zeros(len(labels)), []
    similarity = _similarity(features)
    for repetition in range(repetitions):
        for train, held_out in split_folds(deal_folds(labels, NUM_FOLDS, seed + repetition, groups)):
            head = fit_linear_head(
                features[train],
                labels[train],
                num_classes,
                groups=groups[train],
                class_weights=class_weights,
                strengths=strengths,
                seed=seed,
            )
            probabilities = _softmax(head.logits(features[held_out]))
            linear[repetition, held_out] = probabilities.argmax(axis=1)
            if repetition == 0:
                confidence[held_out] = probabilities.max(axis=1)
            number = _choose_neighbours(similarity, labels, groups, train, num_classes)
            chosen.append(number)
            votes = _vote(similarity[np.ix_(held_out, train)], labels[train], num_classes, (number,))
            nearest[repetition, held_out] = votes[0]
    return CrossValidation(
        labels=labels,
        linear=linear,
        nearest=nearest,
        neighbours=max(set(chosen), key=chosen.count) if chosen else 0,
        confidence=confidence,
    )


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _similarity(features: Features) -> Features:
    """Cosines (n, n)."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    directions = (features / np.where(length == 0, 1, length)).astype(np.float32)
    return directions @ directions.T


def _choose_neighbours(similarity: Features, labels: Indices, groups: Indices, train: Indices, num_classes: int) -> int:
    """The number of neighbours by which most training images are answered from the others."""
    inner = similarity[np.ix_(train, train)].copy()
    inner[groups[train][:, None] == groups[train][None, :]] = -np.inf
    votes = _vote(inner, labels[train], num_classes, NEIGHBOURS)
    return NEIGHBOURS[int(np.argmax([(answers == labels[train]).mean() for answers in votes]))]


def _vote(similarity: Features, labels: Indices, num_classes: int, numbers: Sequence[int]) -> list[Indices]:
    """For each number of neighbours the class with the most similar ones; similarities break ties."""
    most = min(max(numbers), similarity.shape[1])
    order = np.argpartition(-similarity, most - 1, axis=1)[:, :most]
    order = np.take_along_axis(order, np.argsort(-np.take_along_axis(similarity, order, 1), axis=1, kind="stable"), 1)
    weights = 1 + np.maximum(np.take_along_axis(similarity, order, 1), -1) / 1e3
    rows = np.arange(len(similarity))
    votes, answers = np.zeros((len(similarity), num_classes)), {}
    for rank in range(most):
        np.add.at(votes, (rows, labels[order[:, rank]]), weights[:, rank])
        answers[rank + 1] = votes.argmax(axis=1)
    return [answers[min(number, most)] for number in numbers]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Accuracy with so many labels.

    Attributes:
        per_class: mean number of labels of a class.
        num_images: number of labelled images.
        top1: accuracy on the images of each fold.
    """

    per_class: float
    num_images: int
    top1: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.top1))


@dataclass(frozen=True, kw_only=True)
class Trend:
    """What twice the labels bring, by the end of a learning curve, as a share (0.04 is 4 points).

    Attributes:
        gain: mean over the folds.
        low, high: its 95 % interval.
    """

    gain: float
    low: float
    high: float


def learning_curve(
    features: Features,
    labels: Indices,
    num_classes: int,
    *,
    groups: Indices,
    strength: float,
    class_weights: ClassWeights = "none",
    seed: int = 0,
) -> list[CurvePoint]:
    """Accuracy of the linear probe with more and more labels: 5, 10, 20, ... of each class, then all.

    A fifth of the images is held out in turns; a class that has fewer images gives all. With fewer than 10 images of a
    class the numbers are 1, 2, 4, ... The regularisation is the same for all numbers.

    Args:
        features, labels, num_classes, groups, strength, class_weights, seed: as for :func:`cross_validate`.

    Returns:
        points in the order of their labels; empty where no image can be held out.
    """
    splits = list(split_folds(deal_folds(labels, NUM_FOLDS, seed, groups)))
    usual = int(np.median(np.unique(labels, return_counts=True)[1])) * (NUM_FOLDS - 1) // NUM_FOLDS
    first = 5 if usual >= 10 else 1
    numbers = [first * 2**power for power in range(32) if first * 2**power * CLOSE < usual]
    points = []
    for number in [*numbers, len(labels)]:
        scores, counts, per_class = [], [], []
        for train, held_out in splits:
            drawn = draw_of_each_class(labels, number, (seed, number), train)
            head: LinearHead = fit_linear_head(
                features[drawn], labels[drawn], num_classes, class_weights=class_weights, strengths=(strength,)
            )
            scores.append(float(np.mean(head.logits(features[held_out]).argmax(axis=1) == labels[held_out])))
            counts.append(len(drawn))
            per_class.append(len(drawn) / len(np.unique(labels[drawn])))
        if scores:
            points.append(
                CurvePoint(
                    per_class=float(np.mean(per_class)), num_images=round(float(np.mean(counts))), top1=tuple(scores)
                )
            )
    return points


def trend_of(points: Sequence[CurvePoint]) -> Trend | None:
    """The gain from the last doubling of the labels; None where the curve is shorter."""
    from scipy.stats import t  # half a second to import, which most commands need not wait for

    last = points[-1] if points else None
    earlier = [point for point in points if last is not None and 1.9 * point.per_class <= last.per_class]
    if last is None or not earlier or len(last.top1) < 2:
        return None
    doublings = np.log2(last.per_class / earlier[-1].per_class)
    gains = (np.array(last.top1) - np.array(earlier[-1].top1)) / doublings
    reach = float(t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains)))
    return Trend(gain=float(gains.mean()), low=float(gains.mean()) - reach, high=float(gains.mean()) + reach)
