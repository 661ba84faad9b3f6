"""What a kind of answer promises to say, as plain values that pages draw without knowing the task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

MOST_POINTS = 100
"""Largest number of points of a line."""

STEPS = tuple(step / 200 for step in range(201))
"""Least confidences that a reader can choose: each half of a percent."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A chart of shares.

    Attributes:
        name: a word, unique in the evaluation.
        title: what is shown.
        x, y: what the axes are shares of.
        lines: label -> (x, y) points, both from 0 to 1.
        note: a sentence that reads the chart; empty for none.
    """

    name: str
    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What a least confidence does, for a reader who moves it.

    Attributes:
        name: a word, unique in the evaluation.
        title: what it decides.
        start: the least confidence that is shown first.
        counts: name -> how many there are at each least confidence of :data:`STEPS`.
        shown: (heading, a name of :attr:`counts`, another one that it is a share of, or "" for the number alone).
    """

    name: str
    title: str
    start: float
    counts: Mapping[str, Sequence[int]]
    shown: Sequence[tuple[str, str, str]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of facts.

    Attributes:
        title: what the rows are.
        columns: heading -> kind ("text", "count", "percent", "number").
        rows: a value for each column; None where there is none.
    """

    title: str
    columns: Mapping[str, str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """What was taken for what.

    Attributes:
        title: what rows and columns are.
        rows, columns: names of what it is, and of what it was taken for.
        counts: how often; the first entries of both are the same classes.
        shares: whether counts are too large to read, so that shares of the rows are shown.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    shares: bool = False


@dataclass(frozen=True, kw_only=True)
class Trivial:
    """What an answer reaches that looks at no image.

    Attributes:
        answer: what it does, e.g. "always answering “good”".
        scores: name of a score -> its value; made of the annotations of the evaluated images.
    """

    answer: str
    scores: Mapping[str, float] = field(default_factory=dict)


class Findings(ABC):
    """Takes raw outputs and targets batch by batch, and says what they say.

    Attributes:
        right_is: the score that is the share of :meth:`shares`; "" where there is none.
    """

    right_is: str = ""

    @abstractmethod
    def update(self, output: Tensor, targets: Any) -> None:
        """The raw output (b, ...) and the targets of a batch."""

    @abstractmethod
    def shares(self) -> tuple[Tensor, Tensor]:
        """(images,) and (images,): how much is right in each image, and of how much."""

    @abstractmethod
    def rescored(self, chosen: Tensor) -> dict[str, float]:
        """Scores on the images with the indices ``chosen`` (m,), which may name one several times; for intervals.
        ``right`` is the share of :meth:`shares`, where it is none of things that lie in single images."""

    @abstractmethod
    def trivial(self) -> Trivial:
        """What looks at no image."""

    @abstractmethod
    def errors(self) -> Tensor:
        """(images,): how wrong each answer is; the largest comes first in a list of mistakes."""

    @abstractmethod
    def notes(self) -> list[str]:
        """What is wrong in each image, in a few words."""

    def numbers(self) -> dict[str, float]:
        """What sentences need beside scores and shares."""
        return {}

    def curves(self) -> list[Curve]:
        """Charts."""
        return []

    def thresholds(self) -> list[Threshold]:
        """What a least confidence does."""
        return []

    def tables(self) -> list[Table]:
        """Tables."""
        return []

    def matrices(self) -> list[Matrix]:
        """What was taken for what."""
        return []


def counts_from(confidences: Tensor) -> list[int]:
    """How many confidences (n,) are at least as large as each of :data:`STEPS`."""
    ordered = confidences.double().sort().values
    places = torch.searchsorted(ordered, torch.tensor(STEPS, dtype=torch.float64))
    below: list[int] = places.tolist()
    return [len(ordered) - one for one in below]


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most :data:`MOST_POINTS` points, the first and the last among them, rounded."""
    count = len(points)
    if count > MOST_POINTS:
        points = [points[round(k * (count - 1) / (MOST_POINTS - 1))] for k in range(MOST_POINTS)]
    return [(round(float(x), 4), round(float(y), 4)) for x, y in points]


def precision_line(scores: Tensor, right: Tensor, total: int) -> list[tuple[float, float]]:
    """(recall, precision) at every probability, the highest first.

    Args:
        scores: (n,) probabilities.
        right: (n,) whether what has them is right.
        total: number of all that could be found.
    """
    order = scores.argsort(descending=True, stable=True)
    hits = right[order].double().cumsum(0)
    counts = torch.arange(1, len(order) + 1)
    ordered = scores[order]
    last = torch.ones(len(order), dtype=torch.bool)
    last[:-1] = ordered[1:] < ordered[:-1]  # all or none of equal ones
    return list(zip((hits / total)[last].tolist(), (hits / counts)[last].tolist(), strict=True)) or [(0.0, 0.0)]


def area_below(line: Sequence[tuple[float, float]]) -> float:
    """Area below a line, as steps."""
    area = before = 0.0
    for recall, precision in line:
        area, before = area + (recall - before) * precision, recall
    return area
