"""What people get: raw outputs decoded, shown in tables, written as JSON and drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import fit_image
from vitrail.tasks.base import Task

TaskT = TypeVar("TaskT", bound=Task)
AnswerT = TypeVar("AnswerT")


class Answers(ABC, Generic[TaskT, AnswerT]):
    """The answers of a trained task.

    Attributes:
        columns: heading -> kind ("text", "count", "percent", "number") of the table that answers are shown in.
        task: the trained task, in evaluation mode.
        device: where its weights are.
        difference: what :meth:`draw_difference` draws, for a caption; "" where it draws nothing.
    """

    columns: ClassVar[Mapping[str, str]]
    difference: ClassVar[str] = ""

    def __init__(self, task: TaskT) -> None:
        self.task = task

    @property
    def device(self) -> torch.device:
        return next(self.task.parameters()).device

    @abstractmethod
    def decode(self, output: Tensor) -> list[AnswerT]:
        """The raw output (b, ...) as b answers."""

    def predict(
        self, images: Sequence[Tensor], preprocessing: Preprocessing, top_k: int | None = None
    ) -> list[AnswerT]:
        """Answers to uint8 images (3, h, w) of any size, in pixels of these images.

        Args:
            images: decoded images.
            preprocessing: what the backbone expects.
            top_k: largest number of things that an answer names; the task's own number by default.
        """
        return self.decode(self.outputs(images, preprocessing))

    def predict_sample(self, image: Tensor, target: Any, preprocessing: Preprocessing) -> AnswerT:
        """The answer to an annotated image, with what its target tells beforehand (where the object is)."""
        return self.predict([image], preprocessing)[0]

    def outputs(self, images: Sequence[Tensor], preprocessing: Preprocessing) -> Tensor:
        """Raw outputs (b, ...) for uint8 images (3, h, w) of any size."""
        fitted = torch.stack([fit_image(image, preprocessing) for image in images])
        with torch.inference_mode():
            output: Tensor = self.task(preprocessing.normalize(fitted.to(self.device)))
        return output

    def raw(self, images: NDArray[Any]) -> NDArray[Any]:
        """Raw outputs (b, ...) for normalised float32 images (b, 3, h, w): the task in place of an exported file."""
        with torch.inference_mode():
            output: Tensor = self.task(torch.from_numpy(images).to(self.device))
        return output.float().cpu().numpy()

    def samples(self, count: int, seed: int) -> dict[str, Tensor]:
        """Made pictures, of tasks that take no images: file name -> uint8 picture (3, h, w), overviews first.

        Args:
            count: number of single pictures, 1 or more.
            seed: start of the random numbers; the same seed gives the same pictures.

        Raises:
            ConfigError: the task answers to images, or no picture is asked for.
        """
        raise ConfigError(f"a model of the task '{self.task.name}' makes no pictures of its own; give it images")

    @abstractmethod
    def rows(self, answer: AnswerT) -> list[tuple[Any, ...]]:
        """An answer as rows of a table with :attr:`columns`."""

    @abstractmethod
    def to_dict(self, answer: AnswerT) -> dict[str, Any]:
        """An answer as plain values for JSON."""

    def rank(self, answer: AnswerT) -> float | None:
        """The key that images are sorted by, the largest first; None where answers have no order."""
        return None

    def truth(self, target: Any) -> AnswerT | None:
        """A target (see :meth:`vitrail.data.Samples.target`) as an answer; None where it cannot be drawn."""
        return None

    def draw(self, image: Tensor, answer: AnswerT) -> Tensor | None:
        """A uint8 picture (3, h, w) of an answer over its image; None for tasks whose answers are words."""
        return None

    def draw_difference(self, image: Tensor, answer: AnswerT, target: Any) -> Tensor | None:
        """A uint8 picture (3, h, w) of where an answer and the target differ, over the image; None for tasks whose
        answers are words."""
        return None
