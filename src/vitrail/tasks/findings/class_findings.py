"""One class an image: how sure is sure enough, and what always one answer reaches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitrail.tasks.findings.findings import Curve, Findings, Table, Threshold, Trivial, counts_from, thinned
from vitrail.tasks.findings.plain_words import amount, out_of

TOP = 5

CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Rows of the table of unsure images."""

PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Rows of the table of two classes."""

ANSWERED = 0.8
"""Share of the images that the sentence below the curve leaves to the model."""


class ClassFindings(Findings):
    """Of logits (b, classes) and class indices (b,).

    Args:
        classes: names, in the order of the labels.
    """

    right_is = "top1"

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._confidences: list[Tensor] = []
        self._right: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._both: list[Tensor] = []

    def update(self, output: Tensor, targets: Tensor) -> None:
        probabilities = output.detach().double().softmax(1).cpu()
        confidence, answer = probabilities.max(1)
        self._confidences.append(confidence)
        self._right.append(answer == targets.cpu())
        self._labels.append(targets.cpu())
        if len(self.classes) == 2:  # of many classes these are too many to keep
            self._both.append(probabilities)

    @property
    def confidences(self) -> Tensor:
        """(images,): probability of the first guess."""
        return torch.cat(self._confidences)

    @property
    def labels(self) -> Tensor:
        """(images,)"""
        return torch.cat(self._labels)

    @property
    def right(self) -> Tensor:
        """(images,) bool"""
        return torch.cat(self._right)

    def shares(self) -> tuple[Tensor, Tensor]:
        """1 where the first guess is right, of 1."""
        return self.right.double(), torch.ones(len(self.labels), dtype=torch.float64)

    def rescored(self, chosen: Tensor) -> dict[str, float]:
        """``balanced``: the mean recall of the classes that occur."""
        labels, right = self.labels[chosen], self.right[chosen].double()
        seen = torch.bincount(labels, minlength=len(self.classes))
        hits = torch.bincount(labels, weights=right, minlength=len(self.classes))
        return {"balanced": float((hits[seen > 0] / seen[seen > 0]).mean())}

    def trivial(self) -> Trivial:
        """The most frequent class (for top-5: the five most frequent) of these images; chance for ``balanced``."""
        counts = torch.bincount(self.labels, minlength=len(self.classes)).double()
        order = counts.sort(descending=True, stable=True)
        shares = order.values.cumsum(0) / counts.sum()
        scores = {"top1": float(shares[0]), "top5": float(shares[min(TOP, len(shares)) - 1])}
        scores["balanced"] = 1 / max(int((counts > 0).sum()), 1)
        return Trivial(answer=f"always answering “{self.classes[int(order.indices[0])]}”", scores=scores)

    def errors(self) -> Tensor:
        """The confidence of wrong answers; below 0 for right ones."""
        return torch.where(self.right, -self.confidences, self.confidences)

    def notes(self) -> list[str]:
        """Nothing: label and answer stand below each picture."""
        return [""] * len(self.labels)

    def numbers(self) -> dict[str, float]:
        """``balanced``, see :meth:`rescored`."""
        return self.rescored(torch.arange(len(self.labels)))

    def _answered(self) -> tuple[Tensor, Tensor, Tensor]:
        """Confidences, the surest first; how many images have at least that one; how many of these are right."""
        confidence, order = self.confidences.sort(descending=True, stable=True)
        right = self.right[order].double().cumsum(0)
        last = torch.cat([confidence[1:] < confidence[:-1], torch.tensor([True])])  # all or none of equal ones
        return confidence[last], torch.arange(1, len(order) + 1)[last], right[last]

    def curves(self) -> list[Curve]:
        """Accuracy over the share that is answered; for two classes precision and recall of the rarer one too."""
        _, counts, right = self._answered()
        points = list(zip((counts / counts[-1]).tolist(), (right / counts).tolist(), strict=True))
        unsure = Curve(
            name="answered",
            title="If a person looks at the images that it is unsure of",
            x="images that the model answers alone",
            y="right among these",
            lines={"the model": thinned(points)},
            note=self._advice(counts, right),
        )
        return [unsure, *self._two_classes()]

    def _advice(self, counts: Tensor, right: Tensor) -> str:
        place = int(torch.searchsorted(counts, ANSWERED * int(counts[-1])))
        count, total = int(counts[place]), int(counts[-1])
        if count == total:
            return ""
        left = amount(total - count, "image")
        return (
            f"If a person looks at the {left} of {total} that the model is least sure of, "
            f"{out_of(int(right[place]), count)} of the others are right."
        )

    def thresholds(self) -> list[Threshold]:
        """How many images the model answers alone, and how often it is right then."""
        confidence, total = self.confidences, len(self.labels)
        answered, right = counts_from(confidence), counts_from(confidence[self.right])
        counts = {
            "images": [total] * len(answered),
            "answered": answered,
            "right": right,
            "wrong": [count - hits for count, hits in zip(answered, right, strict=True)],
            "left": [total - count for count in answered],
        }
        return [
            Threshold(
                name="answered",
                title="From which confidence on the model answers alone",
                start=0.5,
                counts=counts,
                shown=(
                    ("answered by the model", "answered", "images"),
                    ("right among these", "right", "answered"),
                    ("wrong among these", "wrong", ""),
                    ("left to a person", "left", ""),
                ),
            )
        ]

    def tables(self) -> list[Table]:
        """The curves as numbers."""
        confidence, right, total = self.confidences, self.right, len(self.labels)
        rows = []
        for least in CONFIDENCES:
            sure = confidence >= least
            count, hits = int(sure.sum()), int((right & sure).sum())
            rows.append([least, count / total, hits / count if count else None, count - hits])
        columns = {
            "confidence at least": "percent",
            "answered": "percent",
            "right": "percent",
            "wrong answers": "count",
        }
        unsure = Table(title="What the model answers alone, and how often it is right then", columns=columns, rows=rows)
        return [unsure, *self._two_class_table()]

    def _rarer(self) -> int | None:
        """Of two classes, the one with fewer images; None for other numbers of classes, or where one is missing."""
        counts = torch.bincount(self.labels, minlength=len(self.classes))
        return int(counts.argmin()) if len(counts) == 2 and int(counts.min()) else None

    def _two_class_table(self) -> list[Table]:
        if (rarer := self._rarer()) is None:
            return []
        name, positive = self.classes[rarer], self.labels == rarer
        probability, rows = torch.cat(self._both)[:, rarer], []
        for least in PROBABILITIES:
            named = probability >= least
            count, hits = int(named.sum()), int((positive & named).sum())
            rows.append([least, count, hits / count if count else None, hits / int(positive.sum())])
        columns = {"probability at least": "percent", "named": "count", "precision": "percent", "recall": "percent"}
        return [Table(title=f"When an image is called “{name}”", columns=columns, rows=rows)]

    def _two_classes(self) -> list[Curve]:
        if (rarer := self._rarer()) is None:
            return []
        probability, order = torch.cat(self._both)[:, rarer].sort(descending=True, stable=True)
        hits = (self.labels == rarer)[order].double().cumsum(0)
        last = torch.cat([probability[1:] < probability[:-1], torch.tensor([True])])
        least, hits, counts = probability[last], hits[last], torch.arange(1, len(order) + 1)[last]
        lines = {"precision": hits / counts, "recall": hits / hits[-1]}
        return [
            Curve(
                name="two-classes",
                title=f"From which probability on an image is called “{self.classes[rarer]}”",
                x="least probability",
                y="precision, recall",
                lines={
                    label: thinned(list(zip(least.tolist(), values.tolist(), strict=True))[::-1])
                    for label, values in lines.items()
                },
                note="Precision: how many of those that are called so are so. Recall: how many of those are found.",
            )
        ]
