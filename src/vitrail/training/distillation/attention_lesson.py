"""Lesson on where maps are strong."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vitrail.tasks.teacher import Seen
from vitrail.training.distillation.features_lesson import resize_map
from vitrail.training.distillation.lesson import Lesson
from vitrail.training.distillation.levels import Pair


class AttentionLesson(Lesson):
    """The energy of each place imitates the teacher's: attention transfer (Zagoruyko and Komodakis, ICLR 2017,
    arXiv:1612.03928). It needs no projection, so that it works from any model to any other.

    Args:
        pairs: which levels are compared.
    """

    name = "attention"

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__()
        self.pairs = tuple(pairs)
        self.student_levels, self.teacher_levels = zip(*pairs, strict=True)

    def forward(self, student: Seen, teacher: Seen) -> Tensor:
        """Mean over the pairs of levels of the squared distance of the two unit vectors."""
        losses = []
        for own, other in self.pairs:
            first, second = _energy(student.maps[own]), _energy(teacher.maps[other])
            second = resize_map(second, (first.shape[-2], first.shape[-1]))
            apart = F.normalize(first.flatten(1), dim=1) - F.normalize(second.flatten(1), dim=1)
            losses.append(apart.square().sum(1).mean())
        return torch.stack(losses).mean()


def _energy(level: Tensor) -> Tensor:
    """Mean square of the channels: (b, c, h, w) to (b, 1, h, w)."""
    return level.float().square().mean(1, keepdim=True)
