"""Images that are all but the same: saved again, resized, mirrored, or cut a little at their edges.

An image is described by the lowest waves (the discrete cosine transform) of its grey copy, each divided by its usual
strength in the set: hashes of images compare the signs of such waves, which is coarser. Two steps keep the search fast
and its answers sure. Products of matrices find pairs that may be copies; for those the waves are taken again through
windows that leave out a twentieth of the image, and finer ones count too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

COARSE, FINE = 8, 10
"""Highest sum of the two wave numbers that are compared in the search, and in the second look."""

MAY_BE, IS = 0.7, 0.95
"""Likeness (a cosine) from which a pair is looked at again, and from which it is a copy."""

MARGIN = 0.05
"""Share of the side that the windows leave out: at the start, at the end, or half at both."""

WINDOWS = ((0.0, 1.0), (0.0, 1 - MARGIN), (MARGIN / 2, 1 - MARGIN / 2), (MARGIN, 1.0))
"""Where the windows begin and end, as shares of the side; the first is the whole image."""

TILE = 2048
"""Images that are compared with as many others at once, in 16 MB."""

MOST_PARTNERS = 20
"""Pairs of one image in a tile that are looked at again; a set of thousands of equal images has millions."""

FEWEST = 30
"""Number of images from which the set's own strengths of waves count more than the usual ones."""

FLAT = 2.0
"""Standard deviation of a grey copy below which it shows nothing that could be compared."""


@dataclass(frozen=True, kw_only=True)
class NearCopy:
    """A pair of images that are all but the same.

    Attributes:
        first, second: indices of the images, the smaller one first.
        likeness: cosine of their descriptions, at most 1.
        mirrored: whether one is the mirror image of the other.
    """

    first: int
    second: int
    likeness: float
    mirrored: bool


def find_near_copies(thumbnails: NDArray[np.uint8]) -> list[NearCopy]:
    """Pairs of images that are all but the same, the most alike first.

    Time grows with the square of the number of images, at the speed of products of matrices: 50,000 images take about
    a minute on two cores.

    Args:
        thumbnails: grey copies of the images, (n, s, s).
    """
    if len(thumbnails) < 2:
        return []
    usable = np.flatnonzero(thumbnails.reshape(len(thumbnails), -1).std(axis=1) >= FLAT)
    if len(usable) < 2:
        return []
    waves = _Waves(thumbnails[usable])
    found = [pair for first, second in _candidates(waves) for pair in _verified(waves, first, second)]
    return sorted(
        (
            NearCopy(first=int(usable[a]), second=int(usable[b]), likeness=likeness, mirrored=mirrored)
            for a, b, likeness, mirrored in found
        ),
        key=lambda pair: (-pair.likeness, pair.first, pair.second),
    )


class _Waves:
    """Descriptions of all images.

    Attributes:
        coarse: of the whole images and of their mirror images, two arrays (n, d) of unit vectors.
        fine: the same with more waves.
        windows: of the images through each of 16 windows, the whole image first: (n, 16, d) unit vectors.
    """

    def __init__(self, thumbnails: NDArray[np.uint8]) -> None:
        images = thumbnails.astype(np.float32)
        images -= images.mean(axis=(1, 2), keepdims=True)
        images /= images.std(axis=(1, 2), keepdims=True)
        side = thumbnails.shape[1]
        bases = [wave_basis(side, *window, FINE) for window in WINDOWS]
        rows, columns = np.meshgrid(np.arange(FINE + 1), np.arange(FINE + 1), indexing="ij")
        chosen = (rows + columns > 0) & (rows + columns <= FINE)
        order, odd = (rows + columns)[chosen], columns[chosen] % 2 == 1
        through = [np.einsum("ki,nij->nkj", basis, images, optimize=True) for basis in bases]
        every = np.stack(
            [np.einsum("nkj,lj->nkl", part, basis, optimize=True)[:, chosen] for part in through for basis in bases], 1
        )
        mean, deviation = _usual(every[:, 0], order)
        mirror = np.where(odd, np.float32(-1), np.float32(1))
        every = (every - mean) / deviation
        mirrored = (every[:, 0] * deviation + mean) * mirror
        both = (every[:, 0], (mirrored - mean) / deviation)
        self.windows = _unit(every)
        self.fine = tuple(map(_unit, both))
        self.coarse = tuple(_unit(values[:, order <= COARSE]) for values in both)


def wave_basis(side: int, start: float, end: float, order: int) -> Floats:
    """Cosine waves (order + 1, side) of a window of a line of pixels, which is sampled between them.

    Args:
        side: number of pixels.
        start, end: where the window begins and ends, as shares of the line.
        order: number of the finest wave.
    """
    steps = (np.arange(side) + 0.5) / side
    places = np.clip((start + steps * (end - start)) * side - 0.5, 0, side - 1)
    below = places.astype(int)
    above = np.minimum(below + 1, side - 1)
    window = np.zeros((side, side))
    window[np.arange(side), below] += 1 - (places - below)
    window[np.arange(side), above] += places - below
    waves = np.cos(np.pi * np.arange(order + 1)[:, None] * steps) * np.sqrt(2 / side)
    return (waves @ window).astype(np.float32)


def _usual(values: Floats, order: NDArray[np.int_]) -> tuple[Floats, Floats]:
    """Mean and deviation of each wave: the set's own, mixed with those of photographs where the set is small.

    In photographs strength falls with the frequency (Field, 1987).
    """
    share = len(values) / (len(values) + FEWEST)
    photographs = 8.0 / order
    variance = share * values.var(axis=0) + (1 - share) * photographs**2
    mean = share * values.mean(axis=0)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def _unit(values: Floats) -> Floats:
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-6)


def _candidates(waves: _Waves) -> Iterator[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    """Pairs that may be copies, as two arrays of indices a tile."""
    whole, mirrored = waves.coarse
    for top in range(0, len(whole), TILE):
        for left in range(top, len(whole), TILE):
            columns = slice(left, left + TILE)
            likeness = np.maximum(
                whole[top : top + TILE] @ whole[columns].T, whole[top : top + TILE] @ mirrored[columns].T
            )
            if left == top:
                likeness[np.tri(len(likeness), dtype=bool)] = -1
            for row in np.flatnonzero((likeness >= MAY_BE).sum(axis=1) > MOST_PARTNERS):
                likeness[row, np.argsort(-likeness[row], kind="stable")[MOST_PARTNERS:]] = -1
            first, second = np.nonzero(likeness >= MAY_BE)
            yield first + top, second + left


def _verified(
    waves: _Waves, first: NDArray[np.int_], second: NDArray[np.int_]
) -> Iterator[tuple[int, int, float, bool]]:
    """Those of the pairs that are copies: one image whole, the other one through any of the windows."""
    for start in range(0, len(first), TILE):
        a, b = first[start : start + TILE], second[start : start + TILE]
        likeness = np.stack(
            [
                np.maximum(
                    np.einsum("pwd,pd->pw", waves.windows[a], other[b]).max(axis=1),
                    np.einsum("pd,pwd->pw", other[a], waves.windows[b]).max(axis=1),
                )
                for other in waves.fine
            ],
            axis=1,
        )
        best = likeness.max(axis=1)
        for index in np.flatnonzero(best >= IS).tolist():
            straight, turned = likeness[index].tolist()
            yield int(a[index]), int(b[index]), min(float(best[index]), 1.0), turned > straight
