"""Scores in which each class counts as much as any other, however many images it has."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.classification import MulticlassStatScores


class MacroScores(MulticlassStatScores):
    """``macro_recall`` (balanced accuracy) and ``macro_f1``: means of the classes' recalls and F1 over the classes that
    occur; 0 before the first image.

    Args:
        num_classes: number of outputs.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes=num_classes, average=None, validate_args=False)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]  # several values
        """Two scalars by name."""
        hits, wrong, _, missed, support = (column.double() for column in super().compute().reshape(-1, 5).T)
        occurs = support > 0
        count = occurs.sum().clamp(min=1)
        f1 = 2 * hits / (2 * hits + wrong + missed).clamp(min=1)
        return {
            "macro_recall": (hits / support.clamp(min=1))[occurs].sum() / count,
            "macro_f1": f1[occurs].sum() / count,
        }
