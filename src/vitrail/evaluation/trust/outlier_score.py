"""How far an image is from everything that a model knows: a large score means an image of another kind.

Two things are added. One is the distance of the features to the nearest class (Mahalanobis, one covariance for all
classes; Lee et al., NeurIPS 2018, arXiv:1807.03888). The other is the energy of the logits (Liu et al., NeurIPS 2020,
arXiv:2010.03759). The distance is scaled to the logits as in ViM (Wang et al., CVPR 2022, arXiv:2203.10807). A model
without classes has the distance alone. docs/results/trust.md has what else was tried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

VALIDATION_SHARE = 0.95
"""Share of the validation images whose score is at most the threshold."""

SHRINKAGE = 0.3
"""Share of the covariance that is the same in all directions: few images do not know the others."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class OutlierScore:
    """From features to a score.

    Attributes:
        whitening: (d, d), after which the features of a class have about the same spread in all directions.
        centres: (c, d), the whitened mean of each class that was seen; one row where there are no classes.
        scale: what a distance is multiplied by before the energy is added; 0 where there is none.
    """

    whitening: NDArray[np.float32]
    centres: NDArray[np.float32]
    scale: float = 0.0

    def __call__(self, features: NDArray[np.float32], logits: Array | None = None) -> Array:
        """Scores (n,) of features (n, d) and logits (n, c), which no temperature has divided."""
        distances = self.distances(features)
        if logits is None or not self.scale:
            return distances
        highest = logits.max(axis=1)
        energy = -highest - np.log(np.exp(logits - highest[:, None]).sum(axis=1))
        return self.scale * distances + energy

    def distances(self, features: NDArray[np.float32]) -> Array:
        """Distance (n,) to the nearest class."""
        white = features.astype(np.float64) @ self.whitening.astype(np.float64)
        centres = self.centres.astype(np.float64)
        squares = (white**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * white @ centres.T
        nearest: Array = np.sqrt(np.maximum(squares.min(axis=1), 0))
        return nearest

    def scaled(self, features: NDArray[np.float32], logits: Array) -> Self:
        """The same score with the energy, in proportions of images that the model was not fitted to.

        Args:
            features: (n, d), of validation images.
            logits: (n, c).
        """
        mean = float(np.abs(logits.max(axis=1)).mean())
        return replace(self, scale=mean / max(float(self.distances(features).mean()), 1e-12))

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a file keeps."""
        return {"whitening": self.whitening, "centres": self.centres, "scale": np.array([self.scale])}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of :attr:`arrays`.

        Raises:
            KeyError: one is missing.
        """
        return cls(whitening=arrays["whitening"], centres=arrays["centres"], scale=float(arrays["scale"][0]))


def fit_outlier_score(features: NDArray[np.float32], labels: NDArray[np.int64]) -> OutlierScore:
    """The distance alone; :meth:`OutlierScore.scaled` adds the energy.

    Args:
        features: (n, d), of training images, at least one.
        labels: (n,), class indices; all the same where there are no classes.
    """
    wide = features.astype(np.float64)
    present, place = np.unique(labels, return_inverse=True)
    means = np.stack([wide[place == index].mean(axis=0) for index in range(len(present))])
    rest = wide - means[place]
    covariance = rest.T @ rest / len(rest)
    spread = float(np.trace(covariance)) / len(covariance)
    if spread <= 0:  # one image a class, or equal images: nothing is known of the spread
        spread = max(float(wide.var()), 1e-12)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * spread * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(values)
    return OutlierScore(whitening=whitening.astype(np.float32), centres=(means @ whitening).astype(np.float32))
