"""What every lesson is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vitrail.tasks.teacher import Seen


class Lesson(nn.Module, ABC):
    """One thing that is taught. Its own parameters are thrown away after the training.

    Attributes:
        name: one of :data:`~vitrail.training.distillation.config.LessonName`.
        wants_output: whether it compares raw outputs.
        student_levels, teacher_levels: indices of the levels that it compares.
    """

    name: str
    wants_output: bool = False
    student_levels: tuple[int, ...] = ()
    teacher_levels: tuple[int, ...] = ()

    @abstractmethod
    def forward(self, student: Seen, teacher: Seen) -> Tensor:
        """How far the student is from the teacher on a batch: a scalar, 0 where they agree."""
