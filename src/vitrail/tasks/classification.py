"""Classification: one class an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits, ImageSet, load_data
from vitrail.device.outputs import best_classes
from vitrail.models import Backbone
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import Score, Task
from vitrail.tasks.findings.class_findings import ClassFindings
from vitrail.tasks.findings.plain_words import out_of
from vitrail.tasks.imitation import Imitation, correlation, hard_labels, soft_labels
from vitrail.tasks.kind import TaskKind

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection


@dataclass(frozen=True)
class ClassScore:
    """A class with its probability for an image.

    Attributes:
        label: the class's name.
        index: its place among the classes.
        probability: softmax of the logits, 0 to 1.
    """

    label: str
    index: int
    probability: float


class ClassificationTask(Task):
    """One class an image; the head is the backbone's own classifier.

    Args:
        backbone: any with ``num_classes == len(classes)``.
        classes: names, in the order of the labels.
        label_smoothing: share of the target that is spread over all classes, in training mode only, so that a
            validation loss is the plain cross-entropy.

    Raises:
        ConfigError: fewer than two classes, another number of outputs than classes, or a smoothing outside [0, 1).
    """

    name = "classification"
    scores = (
        Score(name="top1", title="top-1"),
        Score(name="top5", title="top-5"),
        Score(name="macro_recall", title="macro recall"),
        Score(name="macro_f1", title="macro F1"),
    )
    per_image = True
    losses = ("cross_entropy", "focal", "logit_adjusted")
    probed = True

    def __init__(self, backbone: Backbone, classes: Sequence[str], *, label_smoothing: float = 0.0) -> None:
        super().__init__(backbone, classes)
        if len(self.classes) < 2:
            raise ConfigError(f"{len(self.classes)} classes: telling classes apart needs at least 2")
        if backbone.num_classes != len(self.classes):
            raise ConfigError(
                f"the model has {backbone.num_classes} outputs for {len(self.classes)} classes; "
                f"create it with num_classes={len(self.classes)}"
            )
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing={label_smoothing} is outside [0, 1); 0.1 is usual")
        self.label_smoothing = label_smoothing

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) to logits (b, num_classes)."""
        return self._tempered(self.backbone(images))

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if type(self).forward is not ClassificationTask.forward:
            return super().with_features(images)
        last = self.backbone.forward_features(images)
        return self._tempered(self.backbone.forward_head(last)), self.backbone.forward_head(last, pre_logits=True)

    def _tempered(self, logits: Tensor) -> Tensor:
        return logits if self.temperature == 1 else logits / self.temperature

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits (b, num_classes) with class indices (b,) or soft labels (b, num_classes); in training
        mode :attr:`class_loss`, if there is one."""
        if self.training and self.class_loss is not None:
            return self.class_loss(output, targets, label_smoothing=self.label_smoothing).mean()
        return F.cross_entropy(output.float(), targets, label_smoothing=self.label_smoothing if self.training else 0.0)

    def metrics(self) -> MetricCollection:
        """``top1`` and ``top5`` of logits and class indices; with fewer than five classes k is their number.
        ``macro_recall`` and ``macro_f1`` count each class that occurs alike."""
        from torchmetrics import MetricCollection  # seconds to import, which most commands need not wait for
        from torchmetrics.classification import MulticlassAccuracy

        from vitrail.tasks.metrics.macro import MacroScores

        count = len(self.classes)
        metrics: dict[str, Metric | MetricCollection] = {
            name: MulticlassAccuracy(num_classes=count, top_k=min(k, count), average="micro", validate_args=False)
            for name, k in (("top1", 1), ("top5", 5))
        }
        # grouping by equal states of the first batch would make top-5 a copy of top-1
        return MetricCollection(metrics | {"macro": MacroScores(count)}, compute_groups=False)

    def imitations(self) -> Mapping[str, Imitation]:
        """Probabilities, the teacher's first class alone, or how classes and images compare."""
        return {"logits": soft_labels, "hard": hard_labels, "correlation": correlation}

    def decoding(self) -> dict[str, Any]:
        """``temperature``, where the logits are divided by one."""
        return super().decoding() | ({} if self.temperature == 1 else {"temperature": self.temperature})

    def findings(self) -> ClassFindings:
        """Which confidence is enough, and what always one class reaches."""
        return ClassFindings(self.classes)

    @classmethod
    def in_words(cls, report: Mapping[str, Any], findings: Mapping[str, Any], images: str) -> str:
        count, top1 = report.get("num_images"), report.get("top1")
        if not count or top1 is None:
            return super().in_words(report, findings, images)
        right = out_of(top1 * count, count)
        return f"On {images}, {right} {'is' if right.startswith('1 of') else 'are'} right."


class ClassificationAnswers(Answers[ClassificationTask, tuple[ClassScore, ...]]):
    """The most probable classes of each image, best first."""

    columns = {"rank": "count", "class": "text", "probability": "percent"}

    def decode(self, output: Tensor, top_k: int = 5) -> list[tuple[ClassScore, ...]]:
        """Logits (b, num_classes) to the ``top_k`` most probable classes of each image (all, if there are fewer)."""
        count = min(max(top_k, 1), len(self.task.classes))
        rows = output.detach().float().cpu().numpy()
        return [tuple(ClassScore(**one) for one in best_classes(row, self.task.classes, count)) for row in rows]

    def predict(
        self, images: Sequence[Tensor], preprocessing: Preprocessing, top_k: int | None = None
    ) -> list[tuple[ClassScore, ...]]:
        """The ``top_k`` most probable classes (1 by default) of each image."""
        return self.decode(self.outputs(images, preprocessing), top_k=top_k or 1)

    def rows(self, answer: tuple[ClassScore, ...]) -> list[tuple[Any, ...]]:
        """One a class, the most probable first."""
        return [(rank, score.label, score.probability) for rank, score in enumerate(answer, start=1)]

    def to_dict(self, answer: tuple[ClassScore, ...]) -> dict[str, Any]:
        """``classes``: label, index and probability of each."""
        return {"classes": [asdict(score) for score in answer]}


def _majority(data: DataSplits[ImageSet]) -> float:
    """Share of the validation images that have the class which is the most frequent in training."""
    return float((data.val.labels == data.train.labels.mode().values).float().mean())


CLASSIFICATION = TaskKind(
    task=ClassificationTask,
    build=lambda backbone, spec, _: ClassificationTask(backbone, spec.classes, label_smoothing=spec.label_smoothing),
    answers=ClassificationAnswers,
    load_data=load_data,
    simplest=("always the most frequent class", _majority),
    num_outputs=lambda spec: len(spec.classes),
)
