"""What a probe found of each backbone, and which one to fine-tune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet
from vitrail.evaluation import Interval, bootstrap, wilson
from vitrail.training.cross_validation import CrossValidation, CurvePoint, Trend
from vitrail.training.embedding import Features

MUCH_FASTER = 1.25
"""A backbone that cannot be told from the best one is taken instead if it is faster by this factor."""


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """A backbone.

    Attributes:
        label: its name in tables.
        model: name that ``vitrail models`` lists.
        weights: where its weights are from.
        linear: share of the training images that a linear probe answers right without having seen them, with a 95 %
            interval; None where no image could be held out.
        nearest: the same of the nearest neighbours.
        neighbours: number of neighbours.
        val_top1: share of the validation images that the probe of all training images answers right; None without them.
        latency_ms: median time of one image in PyTorch with one thread; None before it is measured.
        cpu_ms: median processor time of one image.
        contended: whether other programs disturbed the measurement.
        num_params: number of parameters with the classifier.
        image_size: height and width of the input in pixels.
        strength: scikit-learn's C of the probe.
        curve: accuracy over the number of labels.
        trend: what twice the labels bring.
        seconds: duration of all that was computed for it.
    """

    label: str
    model: str
    weights: str
    linear: Interval | None
    nearest: Interval | None
    neighbours: int
    val_top1: float | None
    latency_ms: float | None = None
    cpu_ms: float | None = None
    contended: bool = False
    num_params: int
    image_size: tuple[int, int]
    strength: float
    curve: tuple[CurvePoint, ...]
    trend: Trend | None
    seconds: float

    @property
    def size_bytes(self) -> int:
        """Size of the float32 weights."""
        return 4 * self.num_params

    @property
    def score(self) -> float:
        """The accuracy by which backbones are ordered."""
        return self.linear.mean if self.linear is not None else (self.val_top1 or 0.0)

    @property
    def shown_ms(self) -> float | None:
        """The time of one image; that of the processor where other programs disturbed the measurement."""
        return self.cpu_ms if self.contended else self.latency_ms


@dataclass(frozen=True, kw_only=True)
class ProbedImages:
    """The images that were probed, as the chosen backbone sees them.

    Attributes:
        samples: the training images.
        features: (n, d), by the chosen backbone.
        answers: cross-validated answers of its probe.
        preprocessing: conversion of an image to its input.
    """

    samples: ImageSet
    features: Features
    answers: CrossValidation
    preprocessing: Preprocessing


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """What ``vitrail probe`` found.

    Attributes:
        source: folder of the images, as it was given.
        classes: names, in the order of the labels.
        counts: number of training images of each class.
        num_val: number of validation images.
        majority: name of the most frequent class, and its share of the training images.
        rows: the backbones, the best first.
        chosen: index of the backbone to fine-tune.
        advice: sentences on which one to fine-tune and why, and on more labels.
        notes: sentences on what was left out.
        images: the images, as the chosen backbone sees them.
        next_command: command that fine-tunes the chosen backbone.
        seconds: duration of all.
    """

    source: str
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    num_val: int
    majority: tuple[str, float]
    rows: tuple[ProbeRow, ...]
    chosen: int
    advice: tuple[str, ...]
    notes: tuple[str, ...]
    images: ProbedImages
    next_command: str
    seconds: float

    @property
    def best(self) -> ProbeRow:
        """The backbone to fine-tune."""
        return self.rows[self.chosen]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``probe.json``; of the images their answers and no features."""
        answers = self.images.answers
        facts = {
            name: getattr(self, name)
            for name in ("source", "classes", "counts", "num_val", "chosen", "advice", "notes", "next_command")
        }
        return facts | {
            "majority": {"class": self.majority[0], "share": self.majority[1]},
            "seconds": round(self.seconds, 3),
            "backbones": [asdict(row) | {"size_bytes": row.size_bytes} for row in self.rows],
            "images": [
                {
                    "name": name,
                    "label": self.classes[label],
                    "answer": self.classes[answer] if answer >= 0 else None,
                    "probability": round(float(sure), 4) if answer >= 0 else None,
                }
                for name, label, answer, sure in zip(
                    self.images.samples.names,
                    answers.labels.tolist(),
                    answers.linear[0].tolist(),
                    answers.confidence,
                    strict=True,
                )
            ],
        }


def score_interval(found: CrossValidation, answers: Any) -> Interval | None:
    """Share of right answers with Wilson's interval over the images, which several repetitions do not make more; None
    where nothing was held out."""
    right = found.right(answers)
    return wilson(float(right.mean()) * right.shape[1], right.shape[1]) if right.size else None


def choose(rows: Sequence[ProbeRow], found: Sequence[CrossValidation]) -> tuple[int, str]:
    """The index of the backbone to fine-tune, and why; rows are ordered, the best first.

    It is the fastest of those that cannot be told from the best one, if it is much faster; else the best one.
    """
    best = rows[0]
    told = f"its linear probe is right on {_share(best)}"
    if len(rows) == 1:
        return 0, f"Fine-tune {best.label}: {told}; no other backbone was compared."
    alike = [index for index in range(1, len(rows)) if not _worse(found[0], found[index])]
    quick = min(alike, key=lambda index: rows[index].shown_ms or np.inf, default=0)
    ratio = (best.shown_ms or 0.0) / (rows[quick].shown_ms or np.inf)
    if quick and ratio >= MUCH_FASTER:
        return quick, (
            f"Fine-tune {rows[quick].label}: its linear probe is right on {_share(rows[quick])}. {best.label} reaches "
            f"{_share(best)}, a difference that these images cannot confirm, and takes {ratio:.1f} times as long."
        )
    others = f", and {rows[1].label} on {_share(rows[1])}"
    doubt = f" These images cannot confirm that {rows[1].label} is worse." if 1 in alike else ""
    return 0, f"Fine-tune {best.label}: {told}{others}.{doubt}"


def _worse(best: CrossValidation, other: CrossValidation) -> bool:
    """Whether the best backbone is better on the same images, beyond chance."""
    difference = best.right(best.linear) - other.right(other.linear)
    return bool(difference.size) and bootstrap(difference).low > 0


def _share(row: ProbeRow) -> str:
    if row.linear is None:
        return f"{100 * row.score:.1f} % of the validation images"
    return f"{100 * row.linear.mean:.1f} % of images that it has not seen"


def advice(why: str, majority: tuple[str, float], row: ProbeRow) -> tuple[str, ...]:
    """What to do: which backbone, whether the classes can be told apart at all, and what more labels would bring.

    Args:
        why: sentence of :func:`choose`.
        majority: most frequent class, and its share.
        row: the chosen backbone.
    """
    name, share = majority
    low = row.linear.low if row.linear is not None else row.score
    if low <= share:
        told = f"This is not clearly better than always answering '{name}' ({100 * share:.1f} %)."
        look = "Look at the labels and at the preprocessing before you train."
        return why.replace("Fine-tune", "The best one here is", 1), f"{told} {look}"
    return why, _trend_sentence(row)


def _trend_sentence(row: ProbeRow) -> str:
    """What twice the labels bring, in words that are no surer than the measurement."""
    trend = row.trend
    if trend is None:
        return "Twice the labels: unknown; there are too few images of a class for a curve."
    interval = f"95 % interval {100 * trend.low:+.1f} to {100 * trend.high:+.1f}"
    if trend.low > 0:
        room = 100 * (1 - row.curve[-1].mean)
        return (
            f"Twice the labels: about {min(100 * trend.gain, room):+.0f} points for the probe, if it goes on as in the "
            f"last doubling ({interval})."
        )
    gain = f"the last doubling brought {100 * trend.gain:+.1f} points ({interval})"
    return f"Twice the labels: no clear gain for the probe; {gain}."
