"""What a model's output says, with NumPy alone; ``vitrail predict`` decodes with these functions.

Shapes: b images, n rows, c classes, j keypoints, m x m cells of a mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Size = tuple[int, int]
"""(height, width)."""

MOST_CANDIDATES = 1000
"""Objects that are compared with one another for duplicates."""


@np.errstate(invalid="ignore")  # a model that diverged gives what is no number, and no answer is right for it
def softmax(logits: Array) -> Array:
    """Probabilities along the first axis."""
    powers = np.exp(logits - logits.max(0))
    shares: Array = powers / powers.sum(0)
    return shares


def sigmoid(logits: Array) -> Array:
    """Probabilities of single logits."""
    return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))


def best_classes(logits: Array, classes: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The most probable classes of logits (c,): ``label``, ``index``, ``probability``; the first of equal ones first.

    Raises:
        ValueError: another number of logits than of classes.
    """
    if logits.shape != (len(classes),):
        raise ValueError(f"the output of an image has shape {logits.shape} for {len(classes)} classes")
    shares = softmax(logits)
    order = np.argsort(-shares, kind="stable")[:count].tolist()
    return [{"label": classes[index], "index": index, "probability": float(shares[index])} for index in order]


def named_classes(logits: Array, classes: Sequence[str], min_confidences: Sequence[float]) -> list[dict[str, Any]]:
    """The classes of logits (c,) whose probability is at least their own bound, the most probable first: ``label``,
    ``index``, ``probability``.

    Raises:
        ValueError: another number of logits than of classes or of bounds.
    """
    if not logits.shape == (len(classes),) == (len(min_confidences),):
        raise ValueError(
            f"the output of an image has shape {logits.shape} for {len(classes)} classes, {len(min_confidences)} bounds"
        )
    shares = sigmoid(logits)
    order = np.argsort(-shares, kind="stable")
    order = order[shares[order] >= np.asarray(min_confidences, np.float32)[order]].tolist()
    return [{"label": classes[index], "index": index, "probability": float(shares[index])} for index in order]


def rate(shares: Array, scale: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of the votes, from the share (n,) of each score of the scale."""
    votes = np.asarray(scale, np.float32)
    mean = shares @ votes
    return float(mean), float(np.sqrt(np.maximum(shares @ (votes * votes) - mean * mean, 0)))


def find_objects(
    values: Array,
    num_classes: int,
    *,
    min_confidence: float,
    nms_threshold: float | None,
    max_objects: int,
    limit: Sequence[float] = (1.0, 1.0),
    least: Sequence[float] = (0.0, 0.0),
) -> dict[str, Array]:
    """Objects of a detector's rows (n, 4 + c, or more), the most probable first.

    Boxes are clipped; those without a width or a height are dropped; then, of two boxes of one class that overlap by
    more than ``nms_threshold``, the less probable one.

    Args:
        values: boxes (left, top, right, bottom) as shares of the frame, logits, and perhaps m x m logits of a mask.
        num_classes: number of logits.
        min_confidence: least probability.
        nms_threshold: intersection over union; None for heads that give no duplicates.
        max_objects: largest number of objects.
        limit: right and lower end of the picture, as shares of the frame.
        least: width and height that a box must exceed, as shares of the frame.

    Returns:
        ``boxes`` (k, 4), ``scores`` (k,), ``labels`` (k,), and ``grids`` (k, m, m), probabilities of the mask.
    """
    last = 4 + num_classes
    scores = sigmoid(values[:, 4:last]).reshape(-1)
    order = np.flatnonzero(scores >= min_confidence)
    order = order[np.argsort(-scores[order], kind="stable")]
    boxes = np.clip(values[order // num_classes, :4], 0, np.tile(np.asarray(limit, np.float32), 2))
    seen = (boxes[:, 2:] - boxes[:, :2] > np.asarray(least, np.float32)).all(1)
    order, boxes = order[seen][:MOST_CANDIDATES], boxes[seen][:MOST_CANDIDATES]
    labels = order % num_classes
    kept = np.arange(len(order))
    if nms_threshold is not None:
        kept = _distinct(boxes, labels, nms_threshold, max_objects)
    kept = kept[:max_objects]
    grids = sigmoid(values[order[kept] // num_classes, last:])
    side = math.isqrt(grids.shape[1])
    return {
        "boxes": boxes[kept],
        "scores": scores[order[kept]],
        "labels": labels[kept],
        "grids": grids.reshape(len(kept), side, side),
    }


def _distinct(boxes: Array, labels: Array, threshold: float, most: int) -> Array:
    """Indices of boxes (n, 4), the most probable first, without those that overlap with a better one of their class."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    while alive.any() and len(kept) < most:
        best = int(alive.argmax())
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[:, 2:]) - np.maximum(boxes[best, :2], boxes[:, :2])
        shared = np.maximum(sides, 0).prod(1)
        alive &= (shared / (areas[best] + areas - shared) <= threshold) | (labels != labels[best])
        alive[best] = False
    return np.array(kept, np.int64)


def paste_mask(grid: Array, box: Sequence[float], size: Size) -> Array:
    """(h, w) bool: where a grid of probabilities (m, m) over a box in pixels is one half or more, as Detectron pastes
    it: with a border of zeros, enlarged to whole pixels."""
    corners = np.asarray(box, np.float32).reshape(2, 2)
    middle, half = (corners[1] + corners[0]) * np.float32(0.5), (corners[1] - corners[0]) * np.float32(0.5)
    half = half * np.float32((len(grid) + 2) / len(grid))
    low, high = (middle - half).astype(np.int64)[::-1], (middle + half).astype(np.int64)[::-1]  # rows, columns
    height, width = np.maximum(high - low + 1, 1).tolist()
    first = np.maximum(low, 0)
    stop = np.minimum(high + 1, size)
    drawn = enlarge(np.pad(grid, 1)[None], (height, width), range(*(np.array([first[0], stop[0]]) - low[0]).tolist()))
    mask = np.zeros(size, bool)
    mask[first[0] : stop[0], first[1] : stop[1]] = drawn[0, :, first[1] - low[1] : stop[1] - low[1]] >= 0.5
    return mask


def run_lengths(mask: Array) -> list[int]:
    """COCO's uncompressed run lengths of a mask (h, w): down the columns, the first run is background."""
    flat = mask.T.reshape(-1).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=np.int8(0))).tolist()
    return [stop - start for start, stop in pairwise([0, *edges, len(flat)])]


def enlarge(maps: Array, size: Size, rows: range | None = None) -> Array:
    """Maps (c, h, w) at another size (c, \\*size), bilinear between the middles of pixels; ``rows`` of the result."""
    y, x = (np.asarray(one) for one in (range(size[0]) if rows is None else rows, range(size[1])))
    for axis, (places, count) in enumerate(zip((y, x), size, strict=True), start=1):
        sources = maps.shape[axis]
        at = np.maximum(
            (places.astype(np.float32) + np.float32(0.5)) * np.float32(sources / count) - np.float32(0.5), 0
        )
        first = np.minimum(at.astype(np.int64), sources - 1)
        share = (at - first).astype(np.float32).reshape(-1, *[1] * (2 - axis))
        after = maps.take(np.minimum(first + 1, sources - 1), axis)
        maps = maps.take(first, axis) * (1 - share) + after * share
    return maps


@np.errstate(invalid="ignore")
def find_keypoints(maps: Array, sigma: float) -> tuple[Array, Array]:
    """Places (b, j, 2: x, y) as shares of the frame, and scores (b, j), of heat maps (b, j, rows, columns).

    A place is the largest value, moved by DARK (Zhang et al., CVPR 2020, arXiv:1910.06278) to the peak of the Gaussian
    of spread ``sigma`` (in pixels of the map) that runs through its neighbours. A score is that value, 0 to 1.
    """
    rows, columns = maps.shape[-2:]
    flat = maps.reshape(*maps.shape[:2], -1)
    place, scores = flat.argmax(2), flat.max(2)
    y, x = place // columns, place % columns
    places = np.stack([x, y], -1) + 0.5 + _peak_offset(_blur(maps, sigma), y, x)
    return places / [columns, rows], np.clip(scores, 0, 1)


def _blur(maps: Array, sigma: float) -> Array:
    """Gaussian of the spread that peaks were trained with, at unchanged maxima, so that a ragged map has one slope."""
    radius = max(round(2 * sigma), 1)
    line = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    line = (line / line.sum()).astype(np.float32)
    for axis in (2, 3):
        margins = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(maps, margins), len(line), axis)
        maps = windows @ line
    return np.maximum(maps, np.float32(1e-10))


def _peak_offset(maps: Array, y: Array, x: Array) -> Array:
    """One Newton step on the logarithm (b, j, 2: x, y), at most one pixel; 0 at the border and where nothing curves."""
    rows, columns = maps.shape[-2:]
    logs = np.pad(np.log(maps), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge").reshape(*maps.shape[:2], -1)

    def at(down: int, right: int) -> Array:
        index = (y + 1 + down) * (columns + 2) + x + 1 + right
        return np.take_along_axis(logs, index[..., None], 2)[..., 0]

    along, down = (at(0, 1) - at(0, -1)) / 2, (at(1, 0) - at(-1, 0)) / 2
    xx, yy = at(0, 1) - 2 * at(0, 0) + at(0, -1), at(1, 0) - 2 * at(0, 0) + at(-1, 0)
    xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    determinant = xx * yy - xy * xy
    step = -np.stack([yy * along - xy * down, xx * down - xy * along], -1)
    inside = (x > 0) & (x < columns - 1) & (y > 0) & (y < rows - 1) & (determinant > 1e-6) & (xx < 0)
    return np.where(inside[..., None], np.clip(step / np.maximum(determinant, 1e-6)[..., None], -1, 1), 0.0)
