"""Images dealt into folds, class by class, so that each is judged by a model that has not seen it or a copy of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.data import Samples

ALWAYS_TRAINED = -1
"""Fold of an image that is the only one of its class: without it, the class could not be learnt."""

Indices = NDArray[np.int64]


def groups_of(samples: Samples) -> Indices:
    """A number for each sample; samples with equal image files have the same one."""
    known: dict[str, int] = {}
    marks = [record.digest or f"name {record.name}" for record in samples.records]
    return np.array([known.setdefault(mark, len(known)) for mark in marks], dtype=np.int64)


def deal_folds(labels: Indices, num_folds: int, seed: int, groups: Indices | None = None) -> Indices:
    """The fold of each image, from 0, or :data:`ALWAYS_TRAINED`.

    The images of a class are dealt in turns, in an order that is drawn by seed. scikit-learn's folds refuse classes
    that have fewer images than there are folds, or warn of them.

    Args:
        labels: (n,), class of each image.
        num_folds: number of folds.
        seed: seed of the order.
        groups: (n,), images with equal numbers stay in one fold. Default: every image is alone.
    """
    draw = np.random.default_rng(seed)
    groups = np.arange(len(labels)) if groups is None else groups
    folds = np.full(len(labels), ALWAYS_TRAINED, dtype=np.int64)
    turn = 0
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        own = draw.permutation(np.unique(groups[members]))
        if len(own) < 2:
            continue
        for group in own:
            folds[members[groups[members] == group]] = turn % num_folds
            turn += 1
    return folds


def split_folds(folds: Indices) -> Iterator[tuple[Indices, Indices]]:
    """(indices to train on, indices to judge) of every fold that has images."""
    for fold in np.unique(folds[folds != ALWAYS_TRAINED]):
        yield np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)


def draw_of_each_class(labels: Indices, count: int, seed: Any, among: Sequence[int] | Indices | None = None) -> Indices:
    """Indices of ``count`` images of each class (all, if there are fewer), drawn by seed, in rising order.

    Args:
        labels: (n,), class of each image.
        count: number of images of a class.
        seed: seed, or seeds, of NumPy's generator.
        among: indices that may be drawn. Default: all.
    """
    draw = np.random.default_rng(seed)
    allowed = np.arange(len(labels)) if among is None else np.asarray(among, dtype=np.int64)
    chosen = [draw.permutation(allowed[labels[allowed] == label])[:count] for label in np.unique(labels[allowed])]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
