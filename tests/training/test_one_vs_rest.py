"""Logistic regression of each class against all else: scikit-learn's, with unknown entries left out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from vitrail.core.errors import DataError
from vitrail.training.one_vs_rest import fit_separators


def blobs() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(120, 6)) * [1, 5, 0.2, 1, 1, 1] + 3
    targets = (features[:, :4] + draw.normal(size=(120, 4)) > features[:, :4].mean(0)).astype(np.float32)
    targets[draw.random((120, 4)) < 0.1] = -1
    targets[:, 2], targets[:, 3] = 0, 1  # a class that no image has, and one that all have
    return features, targets


@pytest.mark.parametrize("balanced", [False, True])
def test_it_is_what_scikit_learn_finds(balanced: bool) -> None:
    features, targets = blobs()
    found = fit_separators(features, targets, strengths=(0.5,), balanced=balanced)
    scaled = (features - features.mean(0)) / features.std(0)
    for label in range(2):
        known = targets[:, label] >= 0
        model = LogisticRegression(C=0.5, class_weight="balanced" if balanced else None, tol=1e-8, max_iter=1000)
        model.fit(scaled[known], targets[known, label])
        logits = features @ found.weight[label] + found.bias[label]
        np.testing.assert_allclose(logits, model.decision_function(scaled), atol=2e-3)
    assert found.absent == (2,)
    assert found.bias[2] < -4 < 4 < found.bias[3]
    assert not found.weight[2:].any()


def test_noise_wants_strong_regularisation() -> None:
    features, targets = blobs()
    draw = np.random.default_rng(1)
    noise = fit_separators(draw.normal(size=(120, 40)), targets[draw.permutation(120)], strengths=(1e-4, 1e-2, 1.0))
    told = fit_separators(features, targets, strengths=(1e-4, 1e-2, 1.0))
    assert noise.strength < told.strength


def test_what_cannot_be_fitted() -> None:
    features, targets = blobs()
    with pytest.raises(DataError, match="none of the 120 training images has a label"):
        fit_separators(features, np.zeros_like(targets), strengths=(1.0,))
    with pytest.raises(DataError, match="have the same features"):
        fit_separators(np.ones_like(features), targets, strengths=(1.0,))
