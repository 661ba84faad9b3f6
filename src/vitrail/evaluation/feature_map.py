"""Images as points of a plane: those with similar features lie close to each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEWEST_NEIGHBOURS = 30
"""Images from which t-SNE has neighbourhoods to keep; fewer are projected on two principal components."""

FIRST_COMPONENTS = 50
"""Principal components that t-SNE starts from."""


def place_on_map(features: NDArray[np.float32], seed: int = 0) -> tuple[NDArray[np.float64], str]:
    """Places (n, 2) from 0 to 1, and the name of the method: PCA, then t-SNE where there are enough images.

    Args:
        features: (n, d).
        seed: seed of t-SNE.
    """
    from sklearn.decomposition import PCA  # seconds to import
    from sklearn.manifold import TSNE

    count, width = features.shape
    centred = features.astype(np.float64) - features.mean(axis=0)
    spread = centred.std(axis=0)
    centred /= np.where(spread > 0, spread, 1)
    places, method = np.zeros((count, 2)), "PCA"
    if spread.any():
        few = count < FEWEST_NEIGHBOURS
        components = min(2 if few else FIRST_COMPONENTS, count, width)
        found = PCA(components, random_state=seed).fit_transform(centred)
        if not few:
            perplexity = min(30.0, (count - 1) / 3)
            found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(found)
            method = "t-SNE"
        places[:, : found.shape[1]] = found
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.where(high > low, high - low, 1), method
