"""A linear probe: the classifier of a frozen backbone, fitted by logistic regression instead of trained in epochs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vitrail.core.errors import ConfigError, DataError
from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, MultiLabelSet
from vitrail.models import Backbone
from vitrail.tasks import Task
from vitrail.training.embedding import Features, embed
from vitrail.training.folds import Indices, deal_folds, groups_of, split_folds
from vitrail.training.one_vs_rest import fit_separators

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""scikit-learn's C (small is strong regularisation), of standardised features."""

USUAL_STRENGTH = 0.1
"""C where no class has the two images that a choice needs."""

NUM_FOLDS = 5
"""Folds in which C is chosen."""

NEVER = 20.0
"""How far the logit of a class without training images is below the mean of all others; the largest is above it."""

LEAST_SPREAD = 1e-3
"""Share of the mean spread of all features that counts as spread. A feature below it is rounding noise, which
standardising would make as loud as the others."""

ClassWeights = Literal["none", "balanced"]
"""Weight of a class: its images count alike, or its share of the images is made up for."""

MOST_STEPS = 300
"""Steps of L-BFGS."""


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """A classifier of features: ``features @ weight.T + bias``.

    Attributes:
        weight: (num_classes, num_features), with the standardisation of the features folded in.
        bias: (num_classes,).
        strength: scikit-learn's C, by which it was fitted.
        absent: classes without training images; they never have the largest logit.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    strength: float
    absent: tuple[int, ...] = ()

    def logits(self, features: Features) -> NDArray[np.float64]:
        """Logits (n, num_classes)."""
        return np.asarray(features, dtype=np.float64) @ self.weight.T + self.bias

    def give(self, backbone: Backbone) -> None:
        """Become the classifier of a backbone, in place; of several whose logits are averaged, each.

        Raises:
            ConfigError: the backbone's classifier is no linear layer of this size.
        """
        for head in backbone.classifiers():
            if not isinstance(head, nn.Linear) or head.weight.shape != self.weight.shape:
                shape = tuple(head.weight.shape) if isinstance(head, nn.Linear) else type(head).__name__
                raise ConfigError(
                    f"the classifier of {type(backbone).__name__} is {shape}, and the probe {self.weight.shape}; "
                    f"create the model with num_classes={len(self.bias)}"
                )
            with torch.no_grad():
                head.weight.copy_(torch.from_numpy(self.weight))
                head.bias.copy_(torch.from_numpy(self.bias))


def fit_linear_head(
    features: Features,
    labels: Indices,
    num_classes: int,
    *,
    groups: Indices | None = None,
    class_weights: ClassWeights = "none",
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> LinearHead:
    """Fit scikit-learn's logistic regression to standardised features, as one linear layer.

    The regularisation is the one with the lowest cross-entropy in a cross-validation among the given images.

    Args:
        features: (n, d).
        labels: (n,), class indices.
        num_classes: number of rows of the layer.
        groups: (n,), images with equal numbers stay together in the cross-validation.
        class_weights: "balanced" gives every class the same weight, however many images it has.
        strengths: values of C to choose from, in rising order; a single one is taken as it is.
        seed: seed of the folds.

    Raises:
        DataError: fewer than two classes have images, or all images have the same features.
    """
    wide = np.asarray(features, dtype=np.float64)
    _require_contrast(wide, labels)
    strength = strengths[0]
    if len(strengths) > 1:
        folds = list(split_folds(deal_folds(labels, NUM_FOLDS, seed, groups)))
        strength = _choose(wide, labels, folds, strengths, class_weights) if folds else USUAL_STRENGTH
    weight, bias = _fit(wide, labels, strength, class_weights)
    return _with_absent(weight, bias, np.unique(labels), num_classes, strength)


def _require_contrast(features: NDArray[np.float64], labels: Indices) -> None:
    if (count := len(np.unique(labels))) < 2:
        raise DataError(f"{count} class has training images, and telling classes apart needs at least 2; add images")
    if features.std(axis=0).max() <= 1e-6 * np.abs(features).max():
        raise DataError(
            f"all {len(features)} training images have the same features, as equal images have; give images that differ"
        )


def _choose(
    features: NDArray[np.float64],
    labels: Indices,
    folds: Sequence[tuple[Indices, Indices]],
    strengths: Sequence[float],
    class_weights: ClassWeights,
) -> float:
    """The value of C with the lowest cross-entropy, from strong regularisation to weak until it rises: the weak ones
    take the most steps."""
    best, lowest = strengths[0], np.inf
    for strength in strengths:
        loss = _cross_entropy(features, labels, folds, strength, class_weights)
        if loss > lowest:
            break
        best, lowest = strength, loss
    return best


def _cross_entropy(
    features: NDArray[np.float64],
    labels: Indices,
    folds: Sequence[tuple[Indices, Indices]],
    strength: float,
    class_weights: ClassWeights,
) -> float:
    """Mean cross-entropy of the images that are held out in turns."""
    losses = np.zeros(0)
    judged = np.zeros(0, dtype=np.int64)
    for train, held_out in folds:
        weight, bias = _fit(features[train], labels[train], strength, class_weights)
        logits = features[held_out] @ weight.T + bias
        place = np.searchsorted(np.unique(labels[train]), labels[held_out])
        top = logits.max(axis=1)
        total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        losses = np.append(losses, total - logits[np.arange(len(held_out)), place])
        judged = np.append(judged, labels[held_out])
    if class_weights == "balanced" and len(judged):
        return float(np.mean([losses[judged == label].mean() for label in np.unique(judged)]))
    return float(losses.mean()) if len(losses) else 0.0


def _fit(
    features: NDArray[np.float64], labels: Indices, strength: float, class_weights: ClassWeights
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight and bias of the classes that have images, for features as they are."""
    from sklearn.exceptions import ConvergenceWarning  # seconds to import, which most commands need not wait for
    from sklearn.linear_model import LogisticRegression

    mean, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.maximum(spread, LEAST_SPREAD * float(spread.mean()) or 1.0)
    model = LogisticRegression(
        C=strength, class_weight=None if class_weights == "none" else class_weights, max_iter=MOST_STEPS
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a last digit of a weight changes no answer
        model.fit((features - mean) / scale, labels)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(coefficients) == 1:  # of two classes it gives the logit of the second over the first
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight = coefficients / scale
    return weight, intercepts - weight @ mean


def _with_absent(
    weight: NDArray[np.float64], bias: NDArray[np.float64], present: Indices, num_classes: int, strength: float
) -> LinearHead:
    """All classes: those without images get the mean of the others' logits, lowered."""
    absent = np.setdiff1d(np.arange(num_classes), present)
    every = np.tile(weight.mean(axis=0), (num_classes, 1))
    biases = np.full(num_classes, bias.mean() - NEVER)
    every[present], biases[present] = weight, bias
    return LinearHead(weight=every, bias=biases, strength=strength, absent=tuple(absent.tolist()))


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """What :func:`fit_probe` did.

    Attributes:
        strength: scikit-learn's C, chosen by cross-validation among the training images.
        train_score: the task's first score (top-1, mAP) on the training images, which says nothing of new images.
        val_score: the same on the validation images; None without them.
        val_scores: all scores of the task on the validation images, by name; empty without them.
        absent: names of classes without training images; the probe never answers them.
        seconds: duration, features included.
    """

    strength: float
    train_score: float
    val_score: float | None
    val_scores: dict[str, float]
    absent: tuple[str, ...]
    seconds: float


def fit_probe(  # long: half of it is arguments
    task: Task,
    train: ImageSet | MultiLabelSet,
    preprocessing: Preprocessing,
    *,
    val: ImageSet | MultiLabelSet | None = None,
    class_weights: ClassWeights = "none",
    batch_size: int = 32,
    num_workers: int = 0,
    cache: Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> LinearProbe:
    """Set the classifier of a task to the linear probe of its frozen backbone, in place.

    Args:
        task: a task with one class an image, or any number; its backbone should have pretrained weights.
        train: images that the probe is fitted on.
        preprocessing: conversion of an image to the input of the task.
        val: images that the probe is measured on.
        class_weights: "balanced" gives every class the same weight, however many images it has.
        batch_size: number of images at once.
        num_workers: number of processes that decode; 0 decodes here.
        cache: folder of features that are known. Default: nothing is read or kept.
        seed: seed of the folds in which the regularisation is chosen.
        progress: show bars with the time left.

    Raises:
        ConfigError: the task is no classification.
        DataError: there are no training images, they have one class, or all of them are alike.
        CheckpointError: the features are not finite.
    """
    if not task.probed:
        raise ConfigError(f"a linear probe tells classes apart, and the task is {task.name}; use classification")
    start = time.perf_counter()

    def features_of(samples: ImageSet | MultiLabelSet) -> Features:
        return embed(
            task.backbone,
            samples,
            preprocessing,
            batch_size=batch_size,
            num_workers=num_workers,
            cache=cache,
            progress=progress,
        )

    features = features_of(train)
    head = _head_for(train, features, len(task.classes), class_weights=class_weights, seed=seed)
    head.give(task.backbone)
    main, known = task.scores[0].name, {}
    if val is not None and len(val):
        known = _scores(task, head, features_of(val), val)
    return LinearProbe(
        strength=head.strength,
        train_score=_scores(task, head, features, train)[main],
        val_score=known.get(main),
        val_scores=known,
        absent=tuple(task.classes[label] for label in head.absent),
        seconds=time.perf_counter() - start,
    )


def _head_for(
    train: ImageSet | MultiLabelSet, features: Features, num_classes: int, *, class_weights: ClassWeights, seed: int
) -> LinearHead:
    """One choice among the classes, or a question for each of them."""
    if isinstance(train, ImageSet):
        labels = train.labels.numpy()
        groups = groups_of(train)
        return fit_linear_head(features, labels, num_classes, groups=groups, class_weights=class_weights, seed=seed)
    found = fit_separators(
        np.asarray(features, dtype=np.float64),
        train.targets().numpy(),
        strengths=STRENGTHS,
        groups=groups_of(train),
        balanced=class_weights == "balanced",
        seed=seed,
    )
    return LinearHead(weight=found.weight, bias=found.bias, strength=found.strength, absent=found.absent)


def _scores(task: Task, head: LinearHead, features: Features, samples: ImageSet | MultiLabelSet) -> dict[str, float]:
    """What the metrics of the task say of the probe's answers."""
    metrics, logits = task.metrics(), torch.from_numpy(head.logits(features))
    metrics.update(logits.float(), samples.labels if isinstance(samples, ImageSet) else samples.targets())
    computed = metrics.compute()
    return {score.name: float(computed[score.name]) for score in task.scores}
