"""Multi-label classification: any number of classes an image, also none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits, MultiLabelSet, load_labels
from vitrail.device.outputs import named_classes
from vitrail.models import Backbone
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import Score, Task
from vitrail.tasks.drawing import draw_labels
from vitrail.tasks.findings.label_findings import LabelFindings
from vitrail.tasks.findings.plain_words import out_of
from vitrail.tasks.imitation import Imitation, each_label
from vitrail.tasks.kind import TaskKind
from vitrail.tasks.label_loss import LabelLoss, label_loss

if TYPE_CHECKING:
    from torchmetrics import Metric

    from vitrail.tasks.metrics.label_scores import LabelBoundSearch


@dataclass(frozen=True, kw_only=True)
class MultiLabelOptions:
    """
    Attributes:
        positive_gamma: how much less a class counts that is rightly named, with the asymmetric loss: power of 1 - p.
        negative_gamma: how much less a class counts that is rightly not named: power of p.
        margin: probability up to which a class that an image has not costs nothing, with the asymmetric loss.
    """

    positive_gamma: float = 0.0
    negative_gamma: float = 4.0
    margin: float = 0.05

    def __post_init__(self) -> None:
        for name in ("positive_gamma", "negative_gamma"):
            if getattr(self, name) < 0:
                raise ConfigError("is below 0", **{name: getattr(self, name)})
        if not 0 <= self.margin < 1:
            raise ConfigError("is outside [0, 1); 0.05 is usual", margin=self.margin)


@dataclass(frozen=True)
class NamedClass:
    """A class that an answer names.

    Attributes:
        label: the class's name.
        index: its place among the classes.
        probability: sigmoid of its logit, 0 to 1.
    """

    label: str
    index: int
    probability: float


class MultiLabelTask(Task):
    """Any number of classes an image; the head is the backbone's own classifier, a logit for each class.

    Args:
        backbone: any with ``num_classes == len(classes)``.
        classes: names, in the order of the labels.
        options: the asymmetric loss.
        label_smoothing: share of a target that is spread over the classes, see
            :class:`~vitrail.tasks.label_loss.LabelLoss`; in training mode only.

    Raises:
        ConfigError: no classes, another number of outputs than classes, or a smoothing outside [0, 1).
    """

    name = "multilabel"
    scores = (
        Score(name="map", title="mAP"),
        Score(name="micro_f1", title="micro F1"),
        Score(name="macro_f1", title="macro F1"),
        Score(name="exact_match", title="exact match"),
    )
    losses = ("cross_entropy", "focal", "asymmetric")
    probed = True
    bounds = "class"
    min_confidence = 0.5

    def __init__(
        self,
        backbone: Backbone,
        classes: Sequence[str],
        options: MultiLabelOptions | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(backbone, classes)
        if not self.classes:
            raise ConfigError("there are no classes to name; give at least 1")
        if backbone.num_classes != len(self.classes):
            raise ConfigError(
                f"the model has {backbone.num_classes} outputs for {len(self.classes)} classes; "
                f"create it with num_classes={len(self.classes)}"
            )
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing={label_smoothing} is outside [0, 1); 0.1 is usual")
        self.options = options or MultiLabelOptions()
        self.label_smoothing = label_smoothing

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) to logits (b, num_classes)."""
        return self.backbone(images)

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy of logits (b, num_classes) with targets from 0 to 1, or below 0 where they are unknown,
        which costs nothing; in training mode :attr:`class_loss`, if there is one."""
        if not self.training:
            return LabelLoss()(output, targets).mean()
        return (self.class_loss or LabelLoss())(output, targets, label_smoothing=self.label_smoothing).mean()

    def imitations(self) -> Mapping[str, Imitation]:
        """The probability of each class."""
        return {"logits": each_label}

    def make_class_loss(self, shares: Tensor, **choices: Any) -> LabelLoss:
        """See :func:`~vitrail.tasks.label_loss.label_loss`."""
        asymmetry = (self.options.positive_gamma, self.options.negative_gamma, self.options.margin)
        used = {name: choices[name] for name in ("loss", "class_weights", "beta", "gamma")}
        return label_loss(shares, asymmetry=asymmetry, **used)

    @property
    def least(self) -> tuple[float, ...]:
        """Least probability from which an answer names each class."""
        return self.min_confidences or (self.min_confidence or 0.0,) * len(self.classes)

    def decoding(self) -> dict[str, Any]:
        """The least probability of each class."""
        return super().decoding() | {"min_confidences": list(self.least)}

    def metrics(self) -> Metric:
        """``map``, ``micro_f1``, ``macro_f1``, ``exact_match`` and values by class; what needs a bound takes
        :attr:`least`, which is one half until bounds are found."""
        from vitrail.tasks.metrics.label_scores import LabelMetric  # seconds to import, which most commands need not

        return LabelMetric(torch.tensor(self.least))

    def confidence_search(self) -> LabelBoundSearch:
        """The search for the probabilities with the best F1."""
        from vitrail.tasks.metrics.label_scores import LabelBoundSearch

        return LabelBoundSearch()

    def findings(self) -> LabelFindings:
        """What is found, missed and named wrongly, from :attr:`least` on."""
        return LabelFindings(self.classes, torch.tensor(self.least))

    @classmethod
    def in_words(cls, report: Mapping[str, Any], findings: Mapping[str, Any], images: str) -> str:
        right, facts = findings.get("right"), findings.get("numbers", {})
        if not right or not right["of"]:
            return super().in_words(report, findings, images)
        found = f"On {images}, it finds {out_of(right['count'], right['of'])} labels"
        if not (named := facts.get("named")):
            return f"{found}: it names none."
        if not (wrong := facts.get("wrong", 0)):
            return f"{found}, and all that it names are right."
        return f"{found}. Of those that it names, {out_of(wrong, named)} are wrong."

    def agreement(self, output: Tensor, reference: Tensor) -> float:
        """Share of all classes of all images that both outputs name, or that neither names."""
        least = torch.tensor(self.least, device=output.device)
        return float(((output.sigmoid() >= least) == (reference.sigmoid() >= least)).double().mean())


class MultiLabelAnswers(Answers[MultiLabelTask, tuple[NamedClass, ...]]):
    """The classes that each image has, the most probable first."""

    columns = {"class": "text", "probability": "percent"}
    difference = "green: found; red: missed; orange: named wrongly; grey: named, and nobody knows"

    def decode(self, output: Tensor, top_k: int | None = None) -> list[tuple[NamedClass, ...]]:
        """Logits (b, num_classes) to the classes from their least probability on; at most ``top_k`` of them."""
        rows, task = output.detach().float().cpu().numpy(), self.task
        return [
            tuple(NamedClass(**one) for one in named_classes(row, task.classes, task.least)[:top_k]) for row in rows
        ]

    def predict(
        self, images: Sequence[Tensor], preprocessing: Preprocessing, top_k: int | None = None
    ) -> list[tuple[NamedClass, ...]]:
        """The classes of each image; at most ``top_k`` of them."""
        return self.decode(self.outputs(images, preprocessing), top_k)

    def rows(self, answer: tuple[NamedClass, ...]) -> list[tuple[Any, ...]]:
        """One a class."""
        return [(one.label, one.probability) for one in answer]

    def to_dict(self, answer: tuple[NamedClass, ...]) -> dict[str, Any]:
        """``classes``: label, index and probability of each; empty where the image has none."""
        return {"classes": [asdict(one) for one in answer]}

    def draw(self, image: Tensor, answer: tuple[NamedClass, ...]) -> Tensor:
        """The image with its classes below it."""
        return draw_labels(image, [(f"{one.label} {100 * one.probability:.0f} %", "") for one in answer])

    def draw_difference(self, image: Tensor, answer: tuple[NamedClass, ...], target: Tensor) -> Tensor:
        """The image with what is found, missed and named wrongly below it."""
        named = {one.index: one for one in answer}
        verdicts = {1: "found", 0: "invented"}
        lines = [
            (f"{one.label} {100 * one.probability:.0f} %", verdicts.get(int(target[one.index]), "")) for one in answer
        ]
        missed = [index for index in (target == 1).nonzero()[:, 0].tolist() if index not in named]
        return draw_labels(image, lines + [(self.task.classes[index], "missed") for index in missed])


def _chance(data: DataSplits[MultiLabelSet]) -> float:
    """The mAP of equal probabilities on the validation images: the mean share of the classes that occur."""
    without, having = data.val.class_shares(len(data.classes)).double()
    occurs = having > 0
    return float((having / (having + without).clamp(min=1))[occurs].mean()) if bool(occurs.any()) else 0.0


MULTILABEL = TaskKind(
    task=MultiLabelTask,
    build=lambda backbone, spec, options: MultiLabelTask(
        backbone, spec.classes, options, label_smoothing=spec.label_smoothing
    ),
    answers=MultiLabelAnswers,
    load_data=load_labels,
    options=MultiLabelOptions,
    simplest=("the same labels for every image", _chance),
    num_outputs=lambda spec: len(spec.classes),
)
