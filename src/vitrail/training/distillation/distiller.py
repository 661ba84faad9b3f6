"""All lessons of a training together, weighed against its labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, distributed, nn

from vitrail.core.errors import ConfigError
from vitrail.core.types import Batch
from vitrail.tasks import Task
from vitrail.tasks.teacher import Seen, Teacher
from vitrail.training.distillation.answer_cache import AnswerCache
from vitrail.training.distillation.lesson import Lesson
from vitrail.training.distillation.watching import watched

NUM_STEPS = 20
"""Batches after which the weights of the lessons are settled."""

LEAST = 1e-6


class Distiller(nn.Module):
    """Adds to the loss of the labels what the teacher says.

    The lessons have different units. Each is multiplied by a number so that over the first batches it is as large as
    the loss of the labels; then the number stays. No weight has to be chosen.

    Args:
        teacher: who teaches; it is no part of the state.
        lessons: what is taught.

    Attributes:
        scales: number that each lesson is multiplied by.
        cache: answers that are kept; None asks the teacher each time.
    """

    cache: AnswerCache | None = None
    own_sum: Tensor
    sums: Tensor
    count: Tensor

    def __init__(self, teacher: Teacher, lessons: Sequence[Lesson]) -> None:
        super().__init__()
        self.teacher = teacher
        self.lessons: Any = nn.ModuleList(lessons)
        self.register_buffer("own_sum", torch.zeros((), dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(len(lessons), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @property
    def scales(self) -> Tensor:
        common = torch.where(self.own_sum > LEAST, self.own_sum, self.sums[0])  # without labels, that of the first
        return torch.where(self.sums > LEAST, common / self.sums.clamp(min=LEAST), 1.0)

    def forward(self, task: Task, inputs: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        Args:
            task: the student, in training mode.
            inputs: normalised images, which the student sees.
            batch: the same before, uint8, for the teacher, and their labels.

        Raises:
            ConfigError: an answer of the teacher is not finite, or has another shape than the student's.

        Returns:
            the loss to minimise, and each lesson's part in it by name; that of the labels is ``labels``.
        """
        with watched(task.backbone, self._levels("student_levels")) as maps:
            own, output = task.training_answer(inputs, batch.targets)
        shown = self._shown(batch)
        if not all(torch.isfinite(one).all() for one in (shown.output, *shown.maps.values()) if one is not None):
            raise ConfigError(
                "gives answers that are no numbers; its weights or its file are damaged", teacher=self.teacher.title
            )
        seen = Seen(output=output, maps=maps)
        parts = torch.stack([lesson(seen, shown) for lesson in self.lessons])
        if self.training:
            self._weigh(own.detach(), parts.detach())
        weighed = parts * self.scales.to(parts.dtype)
        names = [lesson.name for lesson in self.lessons]
        return own + weighed.sum(), {"labels": own.detach()} | dict(zip(names, weighed.detach(), strict=True))

    def _shown(self, batch: Batch) -> Seen:
        if self.cache is not None and self.training:
            return self.cache.show(self.teacher, batch)
        return self.teacher.show(batch.images, self.teacher_levels, output=self.wants_output)

    @property
    def teacher_levels(self) -> list[int]:
        """Levels of the teacher that lessons compare."""
        return self._levels("teacher_levels")

    @property
    def wants_output(self) -> bool:
        """Whether a lesson compares raw outputs."""
        return any(lesson.wants_output for lesson in self.lessons)

    def __deepcopy__(self, memo: Any) -> Self:
        """An average of a student's weights has no teacher and keeps no answers."""
        own = {name: value for name, value in vars(self).items() if name not in ("teacher", "cache")}
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        vars(copied).update(copy.deepcopy(own, memo), teacher=self.teacher)
        return copied

    def _levels(self, which: str) -> list[int]:
        return sorted({level for lesson in self.lessons for level in getattr(lesson, which)})

    def _weigh(self, own: Tensor, parts: Tensor) -> None:
        """Take the first batches into account; all processes have the same weights."""
        if int(self.count) >= NUM_STEPS:
            return
        found = torch.cat([own.reshape(1), parts]).double()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(found)
        self.own_sum += found[0]
        self.sums += found[1:]
        self.count += 1
