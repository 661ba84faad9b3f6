"""How far two lists of outputs are apart, where one runtime's answers must be another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_UNMATCHED = 0.25
"""Largest share of rows without a counterpart. Where rows are chosen by their scores, the last bit of a float decides
between two of equal score, as on a plain background, and which others are their duplicates. Wrong files exceed it."""

INTEGER_TOLERANCE = 0.1
"""Largest relative error of integer files. Where a value lies on the edge between two codes, the last bit of a float
decides, and layers amplify it."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two lists of outputs are apart.

    Attributes:
        max_relative_error: max |outputs - reference| / max |reference|.
        top1_agreement: share of the images for which both have the same largest output.
        unmatched_rows: share of the rows that only one of the two has, see :func:`compare_sets`; 0 elsewhere.
    """

    max_relative_error: float
    top1_agreement: float
    unmatched_rows: float = 0.0


def compare(
    outputs: NDArray[Any], reference: NDArray[Any], tolerance: float = 0.0, parts: Sequence[int] = ()
) -> Agreement:
    """Agreement of outputs (n, ...) with the reference's; a NaN or another shape gives an infinite error.

    Args:
        tolerance: relative error within which two rows of a set are the same one.
        parts: number of channels of each part of a row, where the outputs are sets of rows; see :func:`compare_sets`.
    """
    if outputs.shape != reference.shape:
        return Agreement(max_relative_error=float("inf"), top1_agreement=0.0)
    if parts:
        return compare_sets(outputs, reference, tolerance, parts)
    scale = float(np.abs(reference).max()) or 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        error = float(np.abs(outputs - reference).max()) / scale
    flat, flat_reference = outputs.reshape(len(outputs), -1), reference.reshape(len(reference), -1)
    same = flat.argmax(1) == flat_reference.argmax(1)
    return Agreement(
        max_relative_error=error if np.isfinite(error) else float("inf"), top1_agreement=float(same.mean())
    )


def compare_sets(outputs: NDArray[Any], reference: NDArray[Any], tolerance: float, parts: Sequence[int]) -> Agreement:
    """Agreement of outputs (n, rows, c) whose rows are a set.

    Each row is held against the most similar one of the other side. How far two rows are apart is decided by the part
    (of ``parts`` channels) that differs most: a root mean square, relative to the part's largest value.
    ``max_relative_error`` is that of rows within ``tolerance``, and infinite where there is none; ``unmatched_rows`` is
    the share of the others, of the side that has more. A NaN matches nothing.
    """
    if not (np.isfinite(outputs).all() and np.isfinite(reference).all()):
        return Agreement(max_relative_error=float("inf"), top1_agreement=0.0, unmatched_rows=1.0)
    edges = np.cumsum(parts)[:-1].tolist()
    ours, theirs = (np.split(rows.astype(np.float64), edges, axis=-1) for rows in (outputs, reference))
    scales = [(float(np.abs(part).max()) or 1.0) * part.shape[-1] ** 0.5 for part in theirs]
    distances = np.max([_distances(a, b) / scale for a, b, scale in zip(ours, theirs, scales, strict=True)], axis=0)
    nearest = np.stack([distances.min(1), distances.min(2)])  # side, image, row
    matched = nearest <= tolerance
    channels = outputs.shape[-1]
    best, wanted = (rows.reshape(len(rows), -1).argmax(1) % channels for rows in (outputs, reference))
    return Agreement(
        max_relative_error=float(nearest[matched].max()) if matched.any() else float("inf"),
        top1_agreement=float((best == wanted).mean()),
        unmatched_rows=1 - float(matched.mean((1, 2)).min()),
    )


def _distances(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances (n, rows, rows) of all rows (n, rows, c) of both sides."""
    squares = [np.square(rows).sum(-1) for rows in (ours, theirs)]
    products = ours @ theirs.swapaxes(1, 2)
    distances: NDArray[np.float64] = np.sqrt(np.maximum(squares[0][:, :, None] + squares[1][:, None] - 2 * products, 0))
    return distances
