"""The parts of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar

import torch

from vitrail.core.errors import DataError
from vitrail.data.samples import Samples

Part_co = TypeVar("Part_co", bound=Samples, covariant=True)


@dataclass(frozen=True)
class DataSplits(Generic[Part_co]):
    """A data set ready for use.

    Attributes:
        classes: names, in the order of the labels; empty where targets name no classes.
        train, val, test: the parts; ``test`` is None where the data has none.
        fingerprint: SHA-256 over names, targets and contents of all usable images; independent of where they lie.
        skipped: "path: reason" of every image or annotation that was left out.
        source: the path as the user gave it.
    """

    classes: tuple[str, ...]
    train: Part_co
    val: Part_co
    test: Part_co | None
    fingerprint: str
    skipped: tuple[str, ...]
    source: str

    @property
    def held_out(self) -> Part_co:
        """What to evaluate on: the test images, or the validation images where there are none."""
        return self.val if self.test is None else self.test

    def align(self, classes: Sequence[str]) -> Self:
        """The same data with the labels of a model that was trained with ``classes``.

        Raises:
            DataError: the data has a class that the model does not know.
        """
        if tuple(classes) == self.classes:
            return self
        unknown = [name for name in self.classes if name not in classes]
        if unknown:
            known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise DataError(
                f"{self.source} has {len(unknown)} classes that the model does not know ({', '.join(unknown[:5])}); "
                f"rename the folders to the model's classes: {known}"
            )
        table = torch.tensor([list(classes).index(name) for name in self.classes])
        return replace(
            self,
            classes=tuple(classes),
            train=self.train.renumber(table),
            val=self.val.renumber(table),
            test=None if self.test is None else self.test.renumber(table),
        )
