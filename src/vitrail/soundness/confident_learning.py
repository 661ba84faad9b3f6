"""Which labels are probably wrong, by confident learning.

Northcutt, Jiang, Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70 (2021), 1373-1411,
section 3. Written from the paper; the authors' library has a licence (AGPL) that would bind whoever installs Vitrail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelDoubts:
    """What the probabilities of a model say of given labels; arrays have one entry an image.

    Attributes:
        suggested: the most probable class other than the given one.
        margin: probability of the given class minus that of the suggested one, from -1 to 1; low is doubtful.
        doubted: whether the image is counted off the diagonal of the confident joint.
        num_wrong: estimated number of wrong labels, by the joint's shares and the number of images of each class.
    """

    suggested: Indices
    margin: Floats
    doubted: NDArray[np.bool_]
    num_wrong: float


def judge_labels(probabilities: Floats, labels: Indices) -> LabelDoubts:
    """Compare given labels with probabilities of a model that has not learnt from the image in question.

    Args:
        probabilities: (n, classes), out of fold.
        labels: (n,), classes as given.
    """
    number = np.arange(len(labels))
    own = probabilities[number, labels]
    others = probabilities.copy()
    others[number, labels] = -1.0
    suggested = others.argmax(axis=1)
    confident = _confident_classes(probabilities, labels)
    joint = np.zeros(probabilities.shape[1:] * 2)
    counted = confident >= 0
    np.add.at(joint, (labels[counted], confident[counted]), 1)
    return LabelDoubts(
        suggested=suggested,
        margin=own - others[number, suggested],
        doubted=counted & (confident != labels),
        num_wrong=_num_wrong(joint, labels),
    )


def _confident_classes(probabilities: Floats, labels: Indices) -> Indices:
    """For each image the class that it is confidently of, -1 where there is none.

    A class counts whose probability is at least its mean over the images with that label (equation 2 of the paper); of
    several, the most probable one.
    """
    num_classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, weights=probabilities[np.arange(len(labels)), labels], minlength=num_classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    allowed = np.where(probabilities >= thresholds, probabilities, -1.0)
    best = allowed.argmax(axis=1)
    return np.where(allowed.max(axis=1) >= 0, best, -1)


def _num_wrong(joint: Floats, labels: Indices) -> float:
    """Sum off the diagonal of the joint, each row calibrated to the number of images with that label (equation 3)."""
    rows = joint.sum(axis=1)
    counts = np.bincount(labels, minlength=len(joint))
    wrong = np.divide(rows - joint.diagonal(), rows, out=np.zeros_like(rows), where=rows > 0)
    return float((wrong * counts).sum())
