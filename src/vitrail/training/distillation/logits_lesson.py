"""Lesson on raw outputs: logits, boxes, heat maps, shares of scores."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.core.errors import ConfigError
from vitrail.tasks import Task
from vitrail.tasks.imitation import Imitation, soft_labels
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


class PooledLesson(Lesson):
    """The student's pooled features, through one layer, imitate the teacher's output; for students without an output of
    their own.

    Args:
        num_features: length of the student's features.
        num_outputs: length of the teacher's output.
        temperature: where the output is logits, what they are divided by; None where it is any vector, which is
            normalised and compared by a smooth distance.
    """

    name = "logits"
    wants_output = True

    def __init__(self, num_features: int, num_outputs: int, temperature: float | None) -> None:
        super().__init__()
        self.project = nn.Linear(num_features, num_outputs)
        self.temperature = temperature

    def forward(self, student: Seen, teacher: Seen) -> Tensor:
        assert student.output is not None
        assert teacher.output is not None
        output = self.project(student.output).float()
        if self.temperature is not None:
            return soft_labels(output, teacher.output, self.temperature)
        return F.smooth_l1_loss(output, F.layer_norm(teacher.output.float(), teacher.output.shape[1:]), beta=2.0)
