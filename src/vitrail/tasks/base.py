"""What is learnt: a backbone and what turns its features into an output; docs/adding-a-task.md has an example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor, nn

from vitrail.models import Backbone
from vitrail.models.class_tokens import ClassTokenBackbone
from vitrail.tasks.class_loss import LossName, class_loss
from vitrail.tasks.imitation import Imitation

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection  # takes seconds to import, and most commands need no metrics

    from vitrail.tasks.findings.findings import Findings


class BoundSearch(Protocol):
    """A search for the least probability of what answers name."""

    def update(self, output: Tensor, targets: Any) -> None:
        """The raw output (b, ...) and the targets of a batch."""

    def best(self) -> tuple[float, float]:
        """The best :attr:`Task.min_confidence`, and the F1 of all answers together."""

    def by_class(self) -> tuple[float, ...]:
        """The best :attr:`Task.min_confidences`."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A figure of merit.

    Attributes:
        name: the name in :meth:`Task.metrics`, e.g. ``top1``.
        title: the name for people, e.g. "top-1".
        higher_is_better: which of two models wins.
        percent: whether it is a share, shown as a percentage.
    """

    name: str
    title: str
    higher_is_better: bool = True
    percent: bool = True

    def rank(self, value: float) -> float:
        """``value`` so that more is better."""
        return value if self.higher_is_better else -value


class Task(nn.Module, ABC):
    """A backbone with a head, a loss and metrics.

    Attributes:
        name: the value of ``--task`` and of ``task`` in ``run.json``.
        scores: the scalars of :meth:`metrics`, for people; the first one decides which epoch is the best.
        per_image: whether each image is right or wrong: labels are class indices, and the output holds logits.
        takes_images: whether :meth:`forward` takes images; without, :attr:`input_shape` is that of one input.
        comparable: whether its scores compare models on annotated images.
        adversarial: whether it is an :class:`AdversarialTask`.
        teachable: whether a teacher can be beside the labels.
        only_taught: whether it has no labels, and needs a teacher; validation then measures the lessons.
        losses: kinds of loss that it takes in training, the plain one first; empty where it has one of its own.
        class_loss: the loss of a training step in place of the plain one, see :meth:`make_class_loss`; None for that.
        probed: whether logistic regression on the backbone's features can be its head.
        usual_epochs: number of epochs that trainings from random weights usually take.
        crop_fraction: share of the image that evaluation keeps; None leaves it to the backbone.
        output_name: the output's name in exported files.
        row_parts: number of channels of each part of a row, where the output (b, rows, channels) is a set of rows
            chosen by their scores; two correct files may choose or order rows differently where scores are alike.
        input_shape: shape of one input of :meth:`forward`, where that is no image.
        bounds: what :attr:`min_confidence` bounds: "object" or "class"; "" where a task has no such bound.
        min_confidence: least probability of what an answer names; None where a task has no such bound.
        min_confidences: the same for each class; empty where one holds for all.
        taught: whether this training imitates a teacher's output; a backbone with a distillation token (Touvron et al.,
            ICML 2021) then learns the labels with its class token and the teacher with that.
        temperature: what the logits of a classifier are divided by, see :mod:`vitrail.evaluation.trust.temperature`; it
            is fitted after the training, and 1 until somebody wants it.
        backbone: the model; its state-dict names start with ``backbone.`` here.
        classes: names, in the order of the labels; empty where there are none.
    """

    name: ClassVar[str]
    scores: ClassVar[tuple[Score, ...]]
    per_image: ClassVar[bool] = False
    takes_images: ClassVar[bool] = True
    comparable: ClassVar[bool] = True
    adversarial: ClassVar[bool] = False
    teachable: ClassVar[bool] = True
    only_taught: ClassVar[bool] = False
    losses: ClassVar[tuple[LossName, ...]] = ()
    class_loss: Callable[..., Tensor] | None = None
    probed: ClassVar[bool] = False
    usual_epochs: ClassVar[int] = 100
    crop_fraction: ClassVar[float | None] = None
    output_name: str = "logits"
    row_parts: tuple[int, ...] = ()
    input_shape: tuple[int, int, int] | None = None
    bounds: ClassVar[str] = ""
    min_confidence: float | None = None
    min_confidences: tuple[float, ...] = ()
    taught: bool = False
    temperature: float = 1.0

    def __init__(self, backbone: Backbone, classes: Sequence[str] = ()) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = tuple(classes)

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) to one tensor (b, ...); this is what is exported, quantised and measured."""

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The result of :meth:`forward`, and the pooled features (b, num_features) of the backbone."""
        features = self.backbone.forward_head(self.backbone.forward_features(images), pre_logits=True)
        return type(self).forward(self, images), features

    def inputs(self, images: Tensor, targets: Any = None) -> Tensor:
        """The input of :meth:`forward` for normalised images (b, c, h, w) and their targets: the images, unless the
        task takes none. The same images give the same inputs."""
        return images

    @abstractmethod
    def loss(self, output: Tensor, targets: Any) -> Tensor:
        """A scalar to minimise, from the raw output and a batch's targets."""

    def training_answer(self, images: Tensor, targets: Any) -> tuple[Tensor, Tensor | None]:
        """The scalar that a training step minimises, and the raw output that it is from; None where training has no
        output that a teacher's could be compared with. The scalar differs from :meth:`loss`, which validation uses, in
        tasks with auxiliary heads or random masks."""
        backbone = self.backbone
        if (
            self.taught
            and self.probed
            and isinstance(backbone, ClassTokenBackbone)
            and backbone.distillation_token is not None
        ):
            labelled, taught = backbone.head_logits(backbone.forward_features(images))
            return self.loss(labelled, targets), taught
        output = self(images)
        return self.loss(output, targets), output

    def imitations(self) -> Mapping[str, Imitation]:
        """What can be learnt from a teacher's raw output, the usual one first, by name; empty where that is nothing."""
        return {}

    def differs_from(self, teacher: Task) -> str:
        """Why raw outputs of another task of this kind, trained elsewhere, mean something else than this one's, beside
        their classes; "" where they mean the same."""
        return ""

    def choose_classes(self, output: Tensor, places: Sequence[int]) -> Tensor:
        """The raw output with some of its classes, in the order of ``places``."""
        return output[:, list(places)]

    def importance(self, output: Tensor, size: tuple[int, int]) -> Tensor | None:
        """Weights (b, 1, rows, columns) of the places of a map, by what the raw output finds there; None where all
        places count alike."""
        return None

    @abstractmethod
    def metrics(self) -> Metric | MetricCollection:
        """New metrics of (raw output, targets). They compute a dictionary with the names in :attr:`scores`. Metrics
        with one value for each class, such as ``iou_per_class``, are shown by evaluation alone."""

    def make_class_loss(self, shares: Tensor, **choices: Any) -> Callable[..., Tensor]:
        """A new :attr:`class_loss` for training images with these classes.

        Args:
            shares: what :meth:`vitrail.data.Samples.class_shares` says of them.
            choices: arguments of :func:`~vitrail.tasks.class_loss.class_loss`.
        """
        return class_loss(shares, **choices)

    def confidence_search(self) -> BoundSearch | None:
        """A new search for the best :attr:`min_confidence`; None for tasks without one."""
        return None

    def findings(self) -> Findings | None:
        """A new collector of what the answers to evaluated images say beside the scores: mistakes, curves, what an
        answer without a look would reach. None for tasks without."""
        return None

    @classmethod
    def in_words(cls, report: Mapping[str, Any], findings: Mapping[str, Any], images: str) -> str:
        """A report of ``evaluation.json`` as a sentence for somebody who knows no metric.

        Args:
            report: with a number, or None, for each of :attr:`scores`.
            findings: what :meth:`findings` collected; empty where there are none.
            images: "300 images it has not seen", to start with.
        """
        score = cls.scores[0]
        value = report.get(score.name)
        if value is None:
            return f"On {images}, nothing could be measured."
        better = "" if score.higher_is_better else " (lower is better)"
        return f"On {images}, {score.title} is {f'{100 * value:.1f} %' if score.percent else f'{value:.3g}'}{better}."

    def decoding(self) -> dict[str, Any]:
        """What a program without Vitrail must know of the output, beside preprocessing and classes: plain values, which
        exported files hold. ``frame`` says how an image is put into the model's size: "crop", "letterbox" or "view",
        see :mod:`vitrail.device.pixels`; it is empty where the input is no image."""
        return {"name": self.name, "frame": "crop" if self.takes_images else ""}

    def agreement(self, output: Tensor, reference: Tensor) -> float:
        """Share of places at which two raw outputs have their largest value in the same channel."""
        return float((output.argmax(1) == reference.argmax(1)).double().mean())


class AdversarialTask(Task):
    """A generator, which is trained against a discriminator. Exported and saved is the generator alone."""

    adversarial = True
    teachable = False

    @abstractmethod
    def make_discriminator(self) -> nn.Module:
        """A new discriminator; training throws it away at the end."""

    @abstractmethod
    def discriminator_loss(self, discriminator: nn.Module, images: Tensor, targets: Any, step: int) -> Tensor:
        """The scalar that the discriminator minimises.

        Args:
            discriminator: a module of :meth:`make_discriminator`.
            images: real ones, normalised (b, 3, h, w).
            targets: those of the batch.
            step: number of steps before this one.
        """

    @abstractmethod
    def generator_loss(self, discriminator: nn.Module, targets: Any) -> Tensor:
        """The scalar that the task minimises, from new random numbers."""
