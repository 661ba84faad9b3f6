"""One class a pixel: what was taken for what, and which images are worst."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitrail.tasks.findings.findings import Findings, Matrix, Table, Trivial

MOST_CLASSES = 20
"""With more classes, only the most frequent confusions are kept."""

MOST_CONFUSIONS = 10


class PixelFindings(Findings):
    """Of logits (b, classes, h, w) and class indices (b, h, w), at the model's own size.

    Args:
        classes: names, in the order of the labels.
        ignore: label of pixels that do not count.
    """

    right_is = "pixel_accuracy"

    def __init__(self, classes: Sequence[str], ignore: int) -> None:
        self.classes, self.ignore = tuple(classes), ignore
        self.confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)
        self._rows: list[Tensor] = []
        self._joined = torch.zeros(0)  # the rows, once they are drawn from

    def update(self, output: Tensor, targets: Tensor) -> None:
        count = len(self.classes)
        for answer, truth in zip(output.argmax(1).cpu(), targets.cpu(), strict=True):
            known = truth != self.ignore
            pairs = truth[known].long() * count + answer[known]
            confusion = torch.bincount(pairs, minlength=count * count).reshape(count, count)
            self.confusion += confusion
            both = confusion.diagonal()
            self._rows.append(torch.stack([both, confusion.sum(1) + confusion.sum(0) - both, confusion.sum(1)], 1))

    @property
    def rows(self) -> Tensor:
        """(images, classes, 3): pixels of both truth and answer, of either, and of the truth."""
        return torch.stack(self._rows).double()

    def shares(self) -> tuple[Tensor, Tensor]:
        """Right pixels, of those that count."""
        rows = self.rows.sum(1)
        return rows[:, 0], rows[:, 2]

    def rescored(self, chosen: Tensor) -> dict[str, float]:
        """``miou``: over the classes that occur in truth or answer."""
        if len(self._joined) != len(self._rows):
            self._joined = self.rows
        times = torch.bincount(chosen, minlength=len(self._joined)).double()
        return {"miou": float(_mean_overlap(torch.einsum("i,icr->cr", times, self._joined)))}

    def trivial(self) -> Trivial:
        """The most frequent class everywhere."""
        pixels = self.confusion.sum(1).double()
        share = float(pixels.max() / pixels.sum().clamp(min=1))
        scores = {"pixel_accuracy": share, "miou": share / max(int((pixels > 0).sum()), 1)}
        return Trivial(answer=f"calling every pixel “{self.classes[int(pixels.argmax())]}”", scores=scores)

    def errors(self) -> Tensor:
        """1 - mean overlap of the classes of each image."""
        return torch.stack([1 - _mean_overlap(row) for row in self.rows])

    def notes(self) -> list[str]:
        right, counted = self.shares()
        wrong = 100 * (1 - right / counted.clamp(min=1))
        overlaps = 100 * (1 - self.errors())
        return [
            f"{share:.0f} % of the pixels wrong, mean IoU {overlap:.0f} %"
            for share, overlap in zip(wrong.tolist(), overlaps.tolist(), strict=True)
        ]

    def tables(self) -> list[Table]:
        """How much of the pictures each class is, and the most frequent confusions."""
        pixels = self.confusion.sum(1).double()
        shares = (pixels / pixels.sum().clamp(min=1)).tolist()
        answered = (self.confusion.sum(0) / pixels.sum().clamp(min=1)).tolist()
        found = (self.confusion.diagonal() / pixels.clamp(min=1)).tolist()
        every = zip(self.classes, shares, answered, found, strict=True)
        rows = sorted((list(row) for row in every if row[1] or row[2]), key=lambda row: -row[1])
        columns = {"class": "text", "of the pixels": "percent", "in the answers": "percent", "found": "percent"}
        return [
            Table(title="How large the classes are", columns=columns, rows=rows),
            Table(
                title="The most frequent confusions",
                columns={"class": "text", "taken for": "text", "of its pixels": "percent"},
                rows=self._confusions(),
            ),
        ]

    def _confusions(self) -> list[list[str | float]]:
        wrong = self.confusion.double().fill_diagonal_(0)
        order = wrong.flatten().argsort(descending=True, stable=True)[:MOST_CONFUSIONS]
        rows: list[list[str | float]] = []
        for place in order.tolist():
            truth, answer = divmod(place, len(self.classes))
            if wrong[truth, answer]:
                share = float(wrong[truth, answer] / self.confusion[truth].sum())
                rows.append([self.classes[truth], self.classes[answer], share])
        return rows

    def matrices(self) -> list[Matrix]:
        if len(self.classes) > MOST_CLASSES:
            return []
        title = "Rows are the true classes, columns the answers; shares of a row in percent."
        counts = self.confusion.tolist()
        return [Matrix(title=title, rows=self.classes, columns=self.classes, counts=counts, shares=True)]


def _mean_overlap(row: Tensor) -> Tensor:
    """(classes, 3) to the mean overlap of the classes that occur; 1 where none does."""
    occurs = row[:, 1] > 0
    return (row[occurs, 0] / row[occurs, 1]).mean() if bool(occurs.any()) else torch.tensor(1.0, dtype=torch.float64)
