"""Lesson on raw outputs: logits, boxes, heat maps, shares of scores."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from vitrail.core.errors import ConfigError
from vitrail.tasks import Task
from vitrail.tasks.imitation import Imitation
from vitrail.tasks.teacher import Seen
from vitrail.training.distillation.lesson import Lesson


class LogitsLesson(Lesson):
    """The student's raw output imitates the teacher's.

    Args:
        name: name of the lesson.
        imitation: one of :meth:`vitrail.tasks.Task.imitations`.
        task: the student.
        places: place of each of the student's classes among the teacher's; None where they are the same.
        temperature: what logits are divided by.
    """

    wants_output = True

    def __init__(
        self, name: str, imitation: Imitation, task: Task, places: Sequence[int] | None, temperature: float
    ) -> None:
        super().__init__()
        self.name, self.imitation, self.temperature = name, imitation, temperature
        self.choose = task.choose_classes
        self.places = None if places is None else tuple(places)

    def forward(self, student: Seen, teacher: Seen) -> Tensor:
        """
        Raises:
            ConfigError: the outputs have other shapes.
        """
        output, reference = student.output, teacher.output
        assert output is not None
        assert reference is not None
        if self.places is not None:
            reference = self.choose(reference, self.places)
        if output.ndim == reference.ndim == 4 and output.shape[-2:] != reference.shape[-2:]:
            reference = F.interpolate(reference, size=output.shape[-2:], mode="bilinear", align_corners=False)
        if output.shape != reference.shape:
            own, other = ("x".join(map(str, one.shape[1:])) for one in (output, reference))
            raise ConfigError(
                f"the teacher's output is {other} an image, and the student's {own}; teach its features instead "
                "(--teach features), or choose a teacher of the same task",
                teach=self.name,
            )
        return self.imitation(output, reference, self.temperature)
