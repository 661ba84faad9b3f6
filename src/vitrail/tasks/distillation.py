"""Learning from a teacher alone: images without labels teach a backbone, which later tasks start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vitrail.core.errors import ConfigError
from vitrail.data import load_pictures
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import Score, Task
from vitrail.tasks.kind import TaskKind

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@dataclass(frozen=True)
class Embedding:
    """The pooled features (num_features,) of an image."""

    values: tuple[float, ...]

    @property
    def length(self) -> float:
        """Euclidean norm."""
        return sum(value * value for value in self.values) ** 0.5


class DistillationTask(Task):
    """A backbone whose features imitate a teacher's. What joins the two is thrown away after the training, so that the
    task is the backbone alone."""

    name = "distillation"
    scores = (Score(name="imitation", title="distance to the teacher", higher_is_better=False, percent=False),)
    comparable = False
    only_taught = True
    crop_fraction = 1.0
    output_name = "features"

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) to pooled features (b, num_features)."""
        return self.backbone(images)

    def loss(self, output: Tensor, targets: Any) -> Tensor:
        """0: there are no labels."""
        return output.float().sum() * 0.0

    def metrics(self) -> MetricCollection:
        """``imitation``, of the loss of the lessons as a scalar in place of targets.

        Raises:
            ConfigError: (in an update) there is no teacher, as in an evaluation.
        """
        from torchmetrics import MeanMetric, MetricCollection

        class Imitation(MeanMetric):
            def update(self, output: Tensor, targets: Any) -> None:  # type: ignore[override]
                if not isinstance(targets, Tensor):
                    raise ConfigError(
                        "a backbone that a teacher taught has a score in its training alone; train a task from it "
                        "(vitrail train --weights RUN) and evaluate that"
                    )
                super().update(targets.detach(), len(output))

        return MetricCollection({"imitation": Imitation()})

    @classmethod
    def in_words(cls, report: Mapping[str, Any], findings: Mapping[str, Any], images: str) -> str:
        return (
            f"{super().in_words(report, findings, images)} How good the backbone is, only a task tells that is trained "
            f"from it (--weights RUN)."
        )


class DistillationAnswers(Answers[DistillationTask, Embedding]):
    """The features of each image."""

    columns = {"length": "number"}

    def decode(self, output: Tensor) -> list[Embedding]:
        """Features (b, num_features)."""
        return [Embedding(tuple(row)) for row in output.detach().float().cpu().tolist()]

    def rows(self, answer: Embedding) -> list[tuple[Any, ...]]:
        """The norm."""
        return [(answer.length,)]

    def to_dict(self, answer: Embedding) -> dict[str, Any]:
        """``features``."""
        return {"features": list(answer.values)}


DISTILLATION = TaskKind(
    task=DistillationTask,
    build=lambda backbone, *_: DistillationTask(backbone),
    answers=DistillationAnswers,
    load_data=partial(load_pictures, labelled=False, crops=True),
)
