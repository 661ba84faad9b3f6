"""What every task promises; docs/adding-a-task.md goes through it with an example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from vitrail.core.config import typed
from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, DataSplits, fit_image
from vitrail.models import Backbone, create_model
from vitrail.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection  # takes seconds to import, and most commands need no metrics


@dataclass(frozen=True, kw_only=True)
class Score:
    """A figure of merit.

    Attributes:
        name: as :meth:`Task.metrics` calls it, e.g. ``top1``.
        title: for people, e.g. "top-1".
        higher_is_better: which of two models wins.
        percent: it is a share, and shown as a percentage.
    """

    name: str
    title: str
    higher_is_better: bool = True
    percent: bool = True

    def rank(self, value: float) -> float:
        """``value`` so that more is better."""
        return value if self.higher_is_better else -value


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """A task without options of its own."""


class Task(nn.Module, ABC):
    """A backbone and what turns its features into an answer: data, head, loss, decoding, metrics.

    Attributes:
        name: what ``--task`` and ``run.json`` call it.
        scores: what :meth:`metrics` computes, for people; the first one decides which epoch is the best.
        columns: heading -> kind ("text", "count", "percent", "number") of the rows that an answer is shown in.
        facts: names of what :meth:`describe_data` notes beside the classes, each a list.
        Options: frozen keyword-only dataclass of what only this task can be told (``--option.NAME`` in training).
        crop_fraction: share of the image that evaluation keeps; None leaves it to the backbone.
        adversarial: it is trained against an opponent, see :meth:`make_opponent`.
        output_name: what exported files call the output.
        row_parts: where the output (b, rows, channels) is a set of rows, chosen by their scores, how many channels each
            of their parts has: equally good files may choose or order rows differently where scores are alike.
        input_shape: of one input of :meth:`forward`, where that is no image.
        backbone: its state-dict names start with ``backbone.`` here.
        classes: names of the classes, in the order of the labels; empty where there are none.
    """

    name: ClassVar[str]
    scores: ClassVar[tuple[Score, ...]]
    columns: ClassVar[Mapping[str, str]]
    facts: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[Any]] = NoOptions
    crop_fraction: ClassVar[float | None] = None
    adversarial: ClassVar[bool] = False
    output_name: str = "logits"
    row_parts: tuple[int, ...] = ()
    input_shape: tuple[int, int, int] | None = None

    def __init__(self, backbone: Backbone, classes: Sequence[str] = ()) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = tuple(classes)

    # How a task comes about ------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def load_data(cls, config: DataConfig, *, progress: bool = False) -> DataSplits[Any]:
        """Find, check and split the data in this task's format.

        Raises:
            DataError: missing or unusable data.
        """

    @classmethod
    def describe_data(cls, data: DataSplits[Any]) -> dict[str, Any]:
        """Entries of ``run.json``, as JSON knows them, that rebuild the task without its data."""
        return {"classes": list(data.classes)}

    @classmethod
    def num_outputs(cls, spec: TaskSpec) -> int:
        """Outputs of the backbone's own classifier; 0 where the task brings a head of its own."""
        return 0

    @classmethod
    def make_backbone(cls, name: str, **fields: Any) -> Backbone:
        """What :meth:`create` gets: a model that ``vitrail models`` lists.

        Raises:
            UnknownNameError, ConfigError, ImageSizeError, CheckpointError: see :func:`vitrail.models.create_model`.
        """
        return create_model(name, **fields)

    @classmethod
    @abstractmethod
    def create(cls, backbone: Backbone, spec: TaskSpec) -> Self:
        """The task around its backbone.

        Args:
            backbone: with :meth:`num_outputs` outputs.
            spec: classes, options, and what :meth:`describe_data` noted.

        Raises:
            ConfigError: the options do not fit, or the backbone's ``feature_info`` lacks what the task needs.
        """

    @classmethod
    def read_options(cls, options: Mapping[str, Any]) -> Any:
        """:attr:`Options` from what was given.

        Raises:
            ConfigError: an option that the task does not have, or a value that is not allowed.
        """
        given = {name.replace("-", "_"): value for name, value in options.items()}  # as options are written on the line
        known = list(cls.Options.__dataclass_fields__)
        if unknown := [name for name in given if name not in known]:
            raise ConfigError(f"task '{cls.name}' has no option '{unknown[0]}'; it has {', '.join(known) or 'none'}")
        try:
            return typed(cls.Options, given)
        except ConfigError as error:
            named = {f"options.{name}": value for name, value in error.values.items()}
            raise ConfigError(error.complaint, **named) from error

    # What it computes ------------------------------------------------------------------------------------------------

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) to one tensor (b, ...); this is what is exported, quantised and measured."""

    def inputs(self, images: Tensor, targets: Any = None) -> Tensor:
        """What :meth:`forward` takes, for a batch of normalised images (b, c, h, w) and its targets: the images, unless
        the task looks at none. The same images give the same inputs."""
        return images

    def make_opponent(self) -> nn.Module:
        """What the task is trained against, and is then thrown away; for adversarial tasks alone."""
        raise NotImplementedError(f"task '{self.name}' has no opponent")

    @abstractmethod
    def loss(self, output: Tensor, targets: Any) -> Tensor:
        """A scalar to minimise, from the raw output and a batch's targets."""

    def training_loss(self, images: Tensor, targets: Any) -> Tensor:
        """What a training step minimises; tasks with auxiliary heads or random masks have more here than in
        :meth:`loss`, which validation uses."""
        return self.loss(self(images), targets)

    @abstractmethod
    def predict(self, output: Tensor) -> list[Any]:
        """The raw output as answers that a person understands, one an image."""

    @abstractmethod
    def metrics(self) -> Metric | MetricCollection:
        """Fresh metrics, to be fed with (raw output, targets); they compute a dictionary with the names in
        :attr:`scores`. What has one value for each class, such as ``iou_per_class``, is shown by evaluation alone."""

    def agreement(self, output: Tensor, reference: Tensor) -> float:
        """Share of places at which two raw outputs have their largest value in the same channel."""
        return float((output.argmax(1) == reference.argmax(1)).double().mean())

    # What people get -------------------------------------------------------------------------------------------------

    def answer(self, images: Sequence[Tensor], preprocessing: Preprocessing, top_k: int | None = None) -> list[Any]:
        """Answers to uint8 images (3, h, w) of any size, in pixels of these images.

        Args:
            images: as decoded.
            preprocessing: what the backbone expects.
            top_k: how many things an answer may name; the task's own number by default.
        """
        return self.predict(self._outputs(images, preprocessing))

    def answer_sample(self, image: Tensor, target: Any, preprocessing: Preprocessing) -> Any:
        """The answer to an annotated image, with what its target tells beforehand (where the object is)."""
        return self.answer([image], preprocessing)[0]

    def _outputs(self, images: Sequence[Tensor], preprocessing: Preprocessing) -> Tensor:
        fitted = torch.stack([fit_image(image, preprocessing) for image in images])
        device = next(self.parameters()).device
        with torch.inference_mode():
            output: Tensor = self(preprocessing.normalize(fitted.to(device)))
        return output

    @abstractmethod
    def rows(self, answer: Any) -> list[tuple[Any, ...]]:
        """An answer as rows of a table with :attr:`columns`."""

    @abstractmethod
    def to_dict(self, answer: Any) -> dict[str, Any]:
        """An answer as JSON knows it."""

    def rank(self, answer: Any) -> float | None:
        """What images are sorted by, the largest first, and the best and worst of them shown on one page; None where
        answers have no order."""
        return None

    def truth(self, target: Any) -> Any | None:
        """A target of the data (see :meth:`vitrail.data.Samples.target`) as an answer, to be drawn; None if it cannot
        be."""
        return None

    def draw(self, image: Tensor, answer: Any) -> Tensor | None:
        """A uint8 picture (3, h, w) of an answer over its image; None where a picture would say nothing."""
        return None
