"""Objects: what is found, missed, invented, and taken for another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from vitrail.core.types import ImageSize
from vitrail.tasks.findings.findings import (
    Curve,
    Findings,
    Matrix,
    Table,
    Threshold,
    Trivial,
    area_below,
    counts_from,
    precision_line,
    thinned,
)
from vitrail.tasks.findings.plain_words import amount
from vitrail.tasks.metrics.confidence import SAME, match_objects

SIZES = {"small, below 32 pixels": (0, 32), "medium": (32, 96), "large, 96 pixels and more": (96, float("inf"))}
"""COCO's limits (of the square root of a box's area), here in pixels of what the model sees."""

MOST_LINES = 4
"""Number of classes that have a line of their own: those with the lowest average precision."""

MOST_CLASSES = 20

FOUND, CONFUSED, INVENTED = range(3)


@dataclass(frozen=True)
class Judged:
    """The objects of one image.

    Attributes:
        boxes, scores, labels: (n, 4), (n,), (n,) of the found objects, without those in crowds.
        kinds: (n,) :data:`FOUND`, :data:`CONFUSED` (an object is there, of another class) or :data:`INVENTED`.
        which: (n,) index of the annotated object, -1 for none.
        given: (m,) labels of the annotated objects, without crowds.
        sides: (m,) square root of the area of each, in pixels of the frame.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    kinds: Tensor
    which: Tensor
    given: Tensor
    sides: Tensor

    @property
    def num_found(self) -> int:
        return int((self.kinds == FOUND).sum())

    @property
    def missed(self) -> list[int]:
        """Indices of annotated objects that nothing was found at, not even of another class."""
        return sorted(set(range(len(self.given))) - set(self.which.tolist()))


def judge_objects(found: Mapping[str, Tensor], target: Mapping[str, Tensor], size: ImageSize = (1, 1)) -> Judged:
    """What the objects of an answer are.

    Args:
        found: ``boxes`` (n, 4), ``scores`` (n,), ``labels`` (n,), the most probable first.
        target: ``boxes`` (m, 4) in the same unit, ``labels`` (m,), ``iscrowd`` (m,).
        size: height and width of the frame in the unit of :attr:`Judged.sides`.
    """
    single = ~target["iscrowd"].bool().cpu()
    plain = {name: target[name].cpu()[single] for name in ("boxes", "labels")}
    which, in_crowd = match_objects(dict(found), dict(target))
    kept = (which >= 0) | ~in_crowd
    places = single.long().cumsum(0) - 1  # of an annotated object among those that are no crowds
    which = torch.where(which >= 0, places[which.clamp(min=0)] if len(places) else which, -1)[kept]
    boxes, labels = found["boxes"].cpu()[kept], found["labels"].cpu()[kept]
    kinds = torch.where(which >= 0, FOUND, INVENTED)
    free = torch.ones(len(plain["labels"]), dtype=torch.bool)
    free[which[which >= 0]] = False
    overlap = box_iou(boxes, plain["boxes"].to(boxes)) * free
    for index in (which < 0).nonzero().flatten().tolist():
        if overlap.shape[1] and overlap[index].max() >= SAME:
            which[index], kinds[index] = overlap[index].argmax(), CONFUSED
            overlap[:, which[index]] = 0
    sides = (plain["boxes"][:, 2:] - plain["boxes"][:, :2]).clamp(min=0) * torch.tensor([size[1], size[0]])
    return Judged(boxes, found["scores"].cpu()[kept], labels, kinds, which, plain["labels"], sides.prod(1).sqrt())


class ObjectFindings(Findings):
    """Of a detector's raw outputs and the targets of each image.

    Args:
        decode: raw outputs to ``boxes`` (shares of the frame), ``scores`` and ``labels`` of each image, best first.
        classes: names, in the order of the labels.
        least: least probability of an object that an answer names.
        size: height and width of the frame in pixels.
    """

    def __init__(
        self,
        decode: Callable[[Tensor], list[dict[str, Tensor]]],
        classes: Sequence[str],
        *,
        least: float,
        size: ImageSize,
    ) -> None:
        self.decode, self.classes, self.least, self.size = decode, tuple(classes), least, size
        self.images: list[Judged] = []  # everything that is decoded
        self.named: list[Judged] = []  # what answers name

    def update(self, output: Tensor, targets: Any) -> None:
        for found, target in zip(self.decode(output), targets, strict=True):
            self.images.append(judge_objects(found, target, self.size))
            sure = found["scores"] >= self.least
            named = {name: found[name][sure] for name in ("boxes", "scores", "labels")}
            self.named.append(judge_objects(named, target, self.size))

    def shares(self) -> tuple[Tensor, Tensor]:
        """Objects that are found with their class, of all."""
        pairs = [(one.num_found, len(one.given)) for one in self.named]
        right, total = torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2).unbind(1)
        return right, total

    def rescored(self, chosen: Tensor) -> dict[str, float]:
        """Nothing: COCO's average takes too long to repeat."""
        return {}

    def trivial(self) -> Trivial:
        scores = dict.fromkeys(("map", "map_50", "mask_map", "mask_map_50"), 0.0)
        return Trivial(answer="finding nothing", scores=scores)

    def errors(self) -> Tensor:
        """Number of objects that are missed, invented or confused."""
        wrong = [len(one.missed) + int((one.kinds != FOUND).sum()) for one in self.named]
        return torch.tensor(wrong, dtype=torch.float64)

    def notes(self) -> list[str]:
        return [note_of(one) for one in self.named]

    def numbers(self) -> dict[str, float]:
        """``named``: objects in all answers; ``invented`` and ``confused`` of these; ``least_probability``."""
        kinds = torch.cat([one.kinds for one in self.named]) if self.images else torch.zeros(0)
        counts = {"invented": int((kinds == INVENTED).sum()), "confused": int((kinds == CONFUSED).sum())}
        return {"named": len(kinds), "least_probability": self.least} | counts

    def curves(self) -> list[Curve]:
        """Precision over recall, of all objects together and of the most difficult classes."""
        scores = torch.cat([one.scores for one in self.images] + [torch.zeros(0)]).double()
        labels = torch.cat([one.labels for one in self.images] + [torch.zeros(0)]).long()
        right = torch.cat([one.kinds == FOUND for one in self.images] + [torch.zeros(0).bool()])
        given = torch.cat([one.given for one in self.images] + [torch.zeros(0)]).long()
        lines = {}
        for index, name in enumerate(self.classes):
            own = labels == index
            if total := int((given == index).sum()):
                lines[name] = precision_line(scores[own], right[own], total)
        hardest = sorted(lines, key=lambda name: area_below(lines[name]))[:MOST_LINES]
        every = {"all objects": precision_line(scores, right, len(given))} if len(lines) > 1 and len(given) else {}
        shown = every | {name: lines[name] for name in self.classes if name in hardest}
        if not shown:
            return []
        fewer = f"; the {MOST_LINES} most difficult of {len(lines)} classes" if len(lines) > MOST_LINES else ""
        return [
            Curve(
                name="precision-recall",
                title=f"How many are found, and how many of those are right{fewer}",
                x="recall: objects that are found",
                y="precision: right ones of these",
                lines={name: thinned(line) for name, line in shown.items()},
                note="Each point is a least probability: fewer false alarms to the left, fewer missed to the right.",
            )
        ]

    def thresholds(self) -> list[Threshold]:
        """How many objects are found and missed, and how many answers are wrong."""
        scores = torch.cat([one.scores for one in self.images] + [torch.zeros(0)])
        right = torch.cat([one.kinds == FOUND for one in self.images] + [torch.zeros(0).bool()])
        total = sum(len(one.given) for one in self.images)
        if not total:
            return []
        named, found = counts_from(scores), counts_from(scores[right])
        counts = {
            "objects": [total] * len(named),
            "named": named,
            "found": found,
            "wrong": [count - hits for count, hits in zip(named, found, strict=True)],
            "missed": [total - hits for hits in found],
        }
        return [
            Threshold(
                name="named",
                title="From which probability on an object is named",
                start=self.least,
                counts=counts,
                shown=(
                    ("precision: right ones of the named", "found", "named"),
                    ("recall: found ones of all objects", "found", "objects"),
                    ("false alarms and other classes", "wrong", ""),
                    ("missed or taken for others", "missed", ""),
                ),
            )
        ]

    def tables(self) -> list[Table]:
        """Counts of each class and of each size, at the least probability of an answer."""
        rows = [[name, *counts] for name, counts in zip(self.classes, self._counts().tolist(), strict=True)]
        columns = {"class": "text", "objects": "count", "found": "count", "missed": "count", "confused": "count"}
        title = f"Objects, where answers name what is at least {100 * self.least:.0f} % probable"
        return [
            Table(title=title, columns=columns | {"false alarms": "count"}, rows=rows),
            Table(
                title="By size, as the model sees it (the square root of the box's area)",
                columns={"size": "text", "objects": "count", "found": "count", "share": "percent"},
                rows=[[name, *_count_size(self.named, low, high)] for name, (low, high) in SIZES.items()],
            ),
        ]

    def _counts(self) -> Tensor:
        """(classes, 5): annotated, found, missed, taken for others, and false alarms."""

        def count(kept: list[Tensor]) -> Tensor:
            return torch.bincount(torch.cat([*kept, torch.zeros(0)]).long(), minlength=len(self.classes))

        named = self.named
        columns = [
            [one.given for one in named],
            [one.labels[one.kinds == FOUND] for one in named],
            [one.given[one.missed] for one in named],
            [one.given[one.which[one.kinds == CONFUSED]] for one in named],
            [one.labels[one.kinds == INVENTED] for one in named],
        ]
        return torch.stack([count(column) for column in columns], 1)

    def matrices(self) -> list[Matrix]:
        """Classes of annotated objects and of what they were taken for."""
        size = len(self.classes)
        if size > MOST_CLASSES:
            return []
        counts = torch.zeros(size + 1, size + 1, dtype=torch.int64)
        for one in self.named:
            truth = torch.where(one.which >= 0, torch.cat([one.given, torch.tensor([size])])[one.which], size)
            counts += torch.bincount(truth * (size + 1) + one.labels, minlength=(size + 1) ** 2).reshape(counts.shape)
            for place in one.missed:
                counts[int(one.given[place]), size] += 1
        return [
            Matrix(
                title="Rows are annotated objects, columns what was found there.",
                rows=(*self.classes, "nothing"),
                columns=(*self.classes, "missed"),
                counts=counts.tolist(),
            )
        ]


def note_of(one: Judged) -> str:
    """What is found, missed, invented and confused in an image."""
    counts = [f"{one.num_found} of {len(one.given)} found"]
    if missed := len(one.missed):
        counts.append(f"{missed} missed")
    if confused := int((one.kinds == CONFUSED).sum()):
        counts.append(f"{confused} of another class")
    if invented := int((one.kinds == INVENTED).sum()):
        counts.append(amount(invented, "false alarm"))
    return ", ".join(counts)


def _count_size(named: Sequence[Judged], low: float, high: float) -> list[Any]:
    given = found = 0
    for one in named:
        inside = (one.sides >= low) & (one.sides < high)
        given += int(inside.sum())
        found += int(inside[one.which[one.kinds == FOUND]].sum())
    return [given, found, found / given if given else None]
