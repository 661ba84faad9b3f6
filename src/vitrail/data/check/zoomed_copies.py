"""Copies that show a part of another image: cut to as little as three fifths of its sides.

So many windows cannot be tried for all pairs of a set. Pairs come from elsewhere, from features that are alike, and
this says which of them are one photograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vitrail.data.check.near_copies import COARSE, FLAT, Floats, NearCopy, wave_basis

SHARES = (1.0, 0.93, 0.86, 0.8, 0.74, 0.69, 0.64, 0.6)
"""Sides of the windows, as shares of the image's side."""

STEP = 0.04
"""Farthest way from one window to the next, as a share of the image's side."""

IS = 0.94
"""Likeness (a cosine) from which a pair is one photograph."""


def find_zoomed_copies(thumbnails: NDArray[np.uint8], pairs: Sequence[tuple[int, int]]) -> list[NearCopy]:
    """Those of the pairs of which one image, whole, is all but the same as a window of the other one, which may be
    mirrored; the most alike first. A pair takes a few milliseconds.

    Args:
        thumbnails: grey copies of the images, (n, s, s).
        pairs: indices of images, the smaller one first.
    """
    if not pairs:
        return []
    images = thumbnails.astype(np.float32)
    flat = images.reshape(len(images), -1).std(axis=1) < FLAT
    whole = _unit(_windows(images, (1.0,))[:, 0])
    deviation = np.sqrt((whole**2).mean(axis=0)) + 1e-6
    mirror = np.where(_numbers()[1] % 2 == 1, np.float32(-1), np.float32(1))
    found = []
    for first, second in pairs:
        if flat[first] or flat[second]:
            continue
        best = [-1.0, -1.0]
        for zoomed, other in ((first, second), (second, first)):
            windows = _unit(_unit(_windows(images[other][None], SHARES)[0]) / deviation)
            for turned, own in enumerate((whole[zoomed], whole[zoomed] * mirror)):
                best[turned] = max(best[turned], float((windows @ _unit(own / deviation)).max()))
        if max(best) >= IS:
            found.append(NearCopy(first=first, second=second, likeness=min(max(best), 1.0), mirrored=best[1] > best[0]))
    return sorted(found, key=lambda pair: (-pair.likeness, pair.first, pair.second))


def _unit(values: Floats) -> Floats:
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-6)


def _windows(images: Floats, shares: Sequence[float]) -> Floats:
    """The lowest waves (n, windows, d) of images (n, s, s) through all windows of these sides."""
    rows, columns = _numbers()
    found = []
    for share in shares:
        bases = _bases(images.shape[1], share)
        through = np.einsum("pki,nij->npkj", bases, images, optimize=True)
        waves = np.einsum("npkj,qlj->npqkl", through, bases, optimize=True)[..., rows, columns]
        found.append(waves.reshape(len(images), -1, len(rows)))
    return np.concatenate(found, axis=1)


@cache
def _bases(side: int, share: float) -> Floats:
    """Cosine waves of the windows of a line of pixels: (positions, waves, side)."""
    count = int(np.ceil((1 - share) / STEP)) + 1
    starts = np.linspace(0, 1 - share, count)
    return np.stack([wave_basis(side, start, start + share, COARSE) for start in starts.tolist()])


@cache
def _numbers() -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Numbers of the waves that are compared, by rows and by columns."""
    rows, columns = np.meshgrid(np.arange(COARSE + 1), np.arange(COARSE + 1), indexing="ij")
    chosen = (rows + columns > 0) & (rows + columns <= COARSE)
    return rows[chosen], columns[chosen]
