"""Any number of classes an image: what is found, missed and named wrongly, class by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from vitrail.tasks.findings.findings import Curve, Findings, Table, Trivial, area_below, precision_line, thinned
from vitrail.tasks.metrics.label_scores import RankedLabels, exact, label_counts, label_scores

MOST_LINES = 4
"""Number of classes that have a line of their own: those with the lowest average precision."""

MOST_NAMED = 4
"""Number of classes that a note names."""


class LabelFindings(Findings):
    """Of logits (b, classes) and targets (b, classes): 1, 0, or below 0 where they are unknown.

    Args:
        classes: names, in the order of the labels.
        bounds: least probability of each class (classes,).
    """

    def __init__(self, classes: Sequence[str], bounds: Tensor) -> None:
        self.classes, self.bounds = tuple(classes), bounds
        self._probabilities: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._ranked: RankedLabels | None = None

    def update(self, output: Tensor, targets: Tensor) -> None:
        self._probabilities.append(output.detach().float().cpu().sigmoid())
        self._targets.append(targets.cpu())

    @property
    def probabilities(self) -> Tensor:
        """(images, classes)"""
        return torch.cat(self._probabilities)

    @property
    def targets(self) -> Tensor:
        """(images, classes)"""
        return torch.cat(self._targets)

    @property
    def named(self) -> Tensor:
        """(images, classes) bool"""
        return self.probabilities >= self.bounds

    def shares(self) -> tuple[Tensor, Tensor]:
        """Labels that are found, of all that images have."""
        has = self.targets == 1
        return (self.named & has).sum(1).double(), has.sum(1).double()

    def rescored(self, chosen: Tensor) -> dict[str, float]:
        """``map``, ``micro_f1``, ``macro_f1``, ``exact_match``; nothing where an answer is no number."""
        if self._ranked is None:
            self._ranked = RankedLabels(self.probabilities, self.targets)
        if not bool(self._ranked.values.isfinite().all()):
            return {}
        times = torch.bincount(chosen, minlength=len(self._ranked.values)).double()
        precisions = self._ranked.precisions(times)
        precisions = precisions[~precisions.isnan()]
        right, judged = exact(self.named, self.targets)
        scores = label_scores(label_counts(self.named, self.targets, times))
        return {
            "map": float(precisions.sum() / max(len(precisions), 1)),
            "exact_match": float(times @ (right & judged).double() / (times @ judged.double()).clamp(min=1)),
        } | {name: float(value) for name, value in scores.items()}

    def trivial(self) -> Trivial:
        """The same labels for every image, those with the best score: as many of the most frequent ones as reach the
        best F1, every class, and the most frequent combination. Equal probabilities have the classes' shares as average
        precision."""
        has, known = (self.targets == 1).double(), (self.targets >= 0).double()
        count, total = has.sum(0), known.sum(0)
        occurs = count > 0
        order = (count / total.clamp(min=1)).argsort(descending=True, stable=True)
        hits, named = count[order].cumsum(0), total[order].cumsum(0)
        scores = {
            "map": _mean((count / total.clamp(min=1))[occurs]),
            "micro_f1": float((2 * hits / (named + count.sum()).clamp(min=1)).max()),
            "macro_f1": _mean((2 * count / (count + total).clamp(min=1))[occurs]),
        }
        whole = self.targets[(self.targets >= 0).all(1)]
        if len(whole) == len(self.targets):  # with unknown labels several combinations may be an image's
            most = Counter(tuple(row) for row in whole.int().tolist()).most_common(1)[0][1]
            scores["exact_match"] = most / len(whole)
        return Trivial(answer="giving every image the same labels", scores=scores)

    def errors(self) -> Tensor:
        """Number of labels that are missed or named wrongly, and below 1 how surely."""
        wrong = (self.named != (self.targets == 1)) & (self.targets >= 0)
        off = (self.probabilities.double() - self.targets).abs() * (self.targets >= 0)
        return wrong.sum(1).double() + off.nan_to_num(nan=1.0).mean(1).clamp(max=1) * 0.999

    def notes(self) -> list[str]:
        return [
            "; ".join(f"{what}: {self._few(row)}" for what, row in (("missed", missed), ("wrong", wrong)) if row.any())
            or "all right"
            for missed, wrong in zip(~self.named & (self.targets == 1), self.named & (self.targets == 0), strict=True)
        ]

    def _few(self, row: Tensor) -> str:
        labels = row.nonzero()[:, 0].tolist()
        shown = ", ".join(self.classes[label] for label in labels[:MOST_NAMED])
        return shown + (f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else "")

    def numbers(self) -> dict[str, float]:
        """``named``: labels in all answers of which it is known whether they are right; ``wrong`` of these."""
        found, wrong, _ = label_counts(self.named, self.targets).sum(1).tolist()
        return {"named": found + wrong, "wrong": wrong}

    def curves(self) -> list[Curve]:
        """Precision over recall, of all labels together and of the most difficult classes."""
        probabilities, targets = self.probabilities, self.targets
        lines = {}
        for index, name in enumerate(self.classes):
            known = targets[:, index] >= 0
            if total := int((targets[:, index] == 1).sum()):
                lines[name] = precision_line(probabilities[known, index], targets[known, index] == 1, total)
        hardest = sorted(lines, key=lambda name: area_below(lines[name]))[:MOST_LINES]
        known = targets >= 0
        every = {}
        if len(lines) > 1:
            every = {"all labels": precision_line(probabilities[known], targets[known] == 1, int((targets == 1).sum()))}
        shown = every | {name: lines[name] for name in self.classes if name in hardest}
        if not shown:
            return []
        fewer = f"; the {MOST_LINES} most difficult of {len(lines)} classes" if len(lines) > MOST_LINES else ""
        return [
            Curve(
                name="precision-recall",
                title=f"How many labels are found, and how many of those are right{fewer}",
                x="recall: labels that are found",
                y="precision: right ones of these",
                lines={name: thinned(line) for name, line in shown.items()},
                note="Each point is a least probability: fewer wrong labels to the left, fewer missed to the right.",
            )
        ]

    def tables(self) -> list[Table]:
        """Each class at its least probability; and the classes that no image has."""
        counts = label_counts(self.named, self.targets).T.tolist()
        precisions = RankedLabels(self.probabilities, self.targets).precisions().tolist()
        known = (self.targets >= 0).sum(0).tolist()
        every = zip(self.classes, counts, precisions, known, self.bounds.tolist(), strict=True)
        rows, absent = [], []
        for name, (found, wrong, missed), precision, total, bound in every:
            if not found + missed:
                absent.append([name, bound, wrong])
                continue
            share = (found + missed) / max(total, 1)
            right = found / (found + wrong) if found + wrong else None
            rows.append([name, found + missed, precision, share, bound, found, missed, wrong, right])
        columns = {
            "class": "text",
            "images": "count",
            "average precision": "percent",
            "by chance": "percent",
            "named from": "percent",
            "found": "count",
            "missed": "count",
            "wrong": "count",
            "precision": "percent",
        }
        return [
            Table(title="Each class, named from its own probability on", columns=columns, rows=rows),
            Table(
                title="Classes that none of these images has: they are in no mean",
                columns={"class": "text", "named from": "percent", "wrong": "count"},
                rows=absent,
            ),
        ]


def _mean(values: Tensor) -> float:
    return float(values.sum() / max(len(values), 1))
