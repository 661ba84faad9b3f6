"""Which entries of multi-label data are probably wrong: a class that an image has and should not, or lacks and has.

Each class is a question of its own, has or has not, judged as :mod:`vitrail.soundness.confident_learning` judges two
classes. Entries of which the data says nothing are neither learnt nor judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitrail.soundness.confident_learning import judge_labels
from vitrail.training.embedding import Features
from vitrail.training.folds import ALWAYS_TRAINED, Indices, deal_folds, split_folds
from vitrail.training.linear_probe import STRENGTHS
from vitrail.training.one_vs_rest import fit_separators

NUM_FOLDS = 5
"""Parts of the images; the entries of each are judged by a probe that was fitted on the others."""

FEWEST_ENTRIES = 5
"""Images that have a class, and images that lack it, from which its entries are judged."""


@dataclass(frozen=True, kw_only=True)
class EntryDoubt:
    """An entry that a probe answers otherwise.

    Attributes:
        image, label: indices of the image and of the class.
        given: whether the data says that the image has the class.
        margin: probability of what is given minus that of the contrary, from -1 to 1.
        doubted: whether confident learning counts it as wrong.
    """

    image: int
    label: int
    given: bool
    margin: float
    doubted: bool


@dataclass(frozen=True, kw_only=True)
class JudgedEntries:
    """What probes say of the entries.

    Attributes:
        doubts: the most doubtful first.
        num_wrong: estimated number of wrong entries.
        num_judged: number of entries that were judged; 0 where no class has enough images.
    """

    doubts: tuple[EntryDoubt, ...] = ()
    num_wrong: float = 0.0
    num_judged: int = 0


def judge_entries(features: Features, targets: NDArray[np.float32], groups: Indices, seed: int) -> JudgedEntries:
    """Compare the given entries with probes that have not learnt from the image in question or a copy of it.

    Args:
        features: (n, d).
        targets: (n, classes), 1 or 0, or below 0 where nothing is known.
        groups: (n,), images with equal numbers are the same or all but the same.
        seed: seed of the folds.

    Raises:
        DataError: all images have the same features.
    """
    folds = deal_folds(np.zeros(len(targets), dtype=np.int64), NUM_FOLDS, seed, groups)
    known = (targets >= 0) & (folds != ALWAYS_TRAINED)[:, None]
    enough = np.minimum((known & (targets == 1)).sum(axis=0), (known & (targets == 0)).sum(axis=0)) >= FEWEST_ENTRIES
    if not enough.any():
        return JudgedEntries()
    probabilities = _out_of_fold(features, targets[:, enough], folds, groups, seed)
    doubts, num_wrong = [], 0.0
    for column, label in enumerate(np.flatnonzero(enough).tolist()):
        images = np.flatnonzero(known[:, label])
        has, given = probabilities[images, column], targets[images, label].astype(np.int64)
        found = judge_labels(np.stack([1 - has, has], axis=1), given)
        num_wrong += found.num_wrong
        doubts += [
            EntryDoubt(
                image=int(images[place]),
                label=label,
                given=bool(given[place]),
                margin=float(found.margin[place]),
                doubted=bool(found.doubted[place]),
            )
            for place in np.flatnonzero((found.margin < 0) | found.doubted).tolist()
        ]
    doubts.sort(key=lambda one: (one.margin, one.image, one.label))
    return JudgedEntries(doubts=tuple(doubts), num_wrong=num_wrong, num_judged=int(known[:, enough].sum()))


def _out_of_fold(
    features: Features, targets: NDArray[np.float32], folds: Indices, groups: Indices, seed: int
) -> NDArray[np.float64]:
    """Probabilities (n, classes) of the images that are held out."""
    wide = np.asarray(features, dtype=np.float64)
    strength = fit_separators(wide, targets, strengths=STRENGTHS, groups=groups, seed=seed).strength
    probabilities = np.zeros(targets.shape)
    for learnt, held_out in split_folds(folds):
        head = fit_separators(wide[learnt], targets[learnt], strengths=(strength,), seed=seed)
        logits = wide[held_out] @ head.weight.T + head.bias
        probabilities[held_out] = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    return probabilities
