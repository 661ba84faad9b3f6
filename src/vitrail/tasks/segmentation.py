"""Semantic segmentation: one class a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vitrail.core.errors import ConfigError
from vitrail.core.import_code import load_installed
from vitrail.core.registered import find_registration
from vitrail.core.types import Preprocessing
from vitrail.data import IGNORE, load_masks
from vitrail.device.answer import class_shares, label_pixels
from vitrail.models import Backbone
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import Score, Task
from vitrail.tasks.drawing import draw_masks, draw_verdicts
from vitrail.tasks.findings.pixel_findings import PixelFindings
from vitrail.tasks.findings.plain_words import out_of
from vitrail.tasks.heads.pyramid import Pyramid
from vitrail.tasks.heads.semantic import HEADS, AuxiliaryHead, resize_to
from vitrail.tasks.imitation import Imitation, channels, soft_labels
from vitrail.tasks.kind import TaskKind

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

MILLION = 1_000_000
"""Pixels, of which a share is told."""


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions:
    """
    Attributes:
        head: decoder of the masks: "semantic_fpn", "upernet", or one of your own (see docs/adding-a-model.md).
        width: number of channels of the head.
        auxiliary: weight of a second loss on the level before the last; 0 leaves its head away.
        inference: treatment of images of another size: "fit" shrinks the whole image to the model's size, "slide" moves
            a window of that size over it, "auto" takes windows for large images.
    """

    head: str = "semantic_fpn"
    width: int = 128
    auxiliary: float = 0.4
    inference: Literal["auto", "fit", "slide"] = "auto"

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            load_installed()
        if self.head not in HEADS:
            raise ConfigError(f"is not allowed; choose {' or '.join(HEADS)}", head=self.head)
        if self.width < 1:
            raise ConfigError("is below 1; 128 is usual", width=self.width)
        if self.auxiliary < 0:
            raise ConfigError("is negative; 0 leaves the second head away", auxiliary=self.auxiliary)


@dataclass(frozen=True)
class Segmentation:
    """The classes of an image's pixels.

    Attributes:
        labels: class indices (h, w), uint8.
        shares: (class name, index, share of the pixels) of every class that occurs, the largest first.
    """

    labels: Tensor
    shares: tuple[tuple[str, int, float], ...]


class SegmentationTask(Task):
    """A head on the backbone's pyramid gives every pixel a class.

    Args:
        backbone: any, see :class:`~vitrail.tasks.heads.pyramid.Pyramid`.
        classes: names, in the order of the labels.
        options: head and inference.
        label_smoothing: share of a label that is spread over all classes in training.
    """

    name = "segmentation"
    scores = (
        Score(name="miou", title="mIoU"),
        Score(name="pixel_accuracy", title="pixel accuracy"),
    )
    losses = ("cross_entropy", "focal", "logit_adjusted")
    crop_fraction = 1.0
    usual_epochs = 60

    def __init__(
        self,
        backbone: Backbone,
        classes: Sequence[str],
        options: SegmentationOptions | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(backbone, classes)
        if len(self.classes) < 2:
            raise ConfigError(f"{len(self.classes)} classes: telling classes apart needs at least 2")
        self.options = options or SegmentationOptions()
        self.label_smoothing = label_smoothing
        self.pyramid = Pyramid(backbone)
        widths, count, width = self.pyramid.channels, len(self.classes), self.options.width
        self.head = HEADS[self.options.head](widths, count, width)
        if find_registration("head of segmentation", self.options.head):
            self._check_head()
        self.auxiliary = AuxiliaryHead(widths[-2], count, width) if self.options.auxiliary else None

    @torch.no_grad()
    def _check_head(self) -> None:
        """Refuse a head of a user's own with another number of classes, which no loss would tell."""
        height, width = self.backbone.config.image_size
        device = next(self.backbone.parameters()).device
        sizes = [(ceil(height / stride), ceil(width / stride)) for stride in self.pyramid.strides]
        maps = [torch.zeros(2, n, *size, device=device) for n, size in zip(self.pyramid.channels, sizes, strict=True)]
        self.head.eval()
        given, count = self.head(maps), len(self.classes)
        self.head.train()
        if not isinstance(given, Tensor) or given.ndim != 4 or given.shape[:2] != (2, count):
            shown = "x".join(map(str, given.shape)) if isinstance(given, Tensor) else f"a {type(given).__name__}"
            raise ConfigError(
                f"head '{self.options.head}' gives {shown} for {count} classes; it must give a map of logits "
                f"2x{count}x{sizes[0][0]}x{sizes[0][1]} (images, classes, rows, columns)"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) to logits (b, num_classes, h, w)."""
        return resize_to(self.head(self.pyramid(self.backbone, images)), images)

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits (b, num_classes, h, w) with class indices (b, h, w), without the ignored; in training
        mode :attr:`class_loss`, if there is one."""
        smoothing = self.label_smoothing if self.training else 0.0
        # one row a pixel: GPUs have no reproducible kernel for maps
        logits = output.float().permute(0, 2, 3, 1).reshape(-1, output.shape[1])
        rows = targets.reshape(-1)
        if self.training and self.class_loss is not None:
            total = self.class_loss(logits, rows, label_smoothing=smoothing, ignore=IGNORE).sum()
        else:
            total = F.cross_entropy(logits, rows, ignore_index=IGNORE, label_smoothing=smoothing, reduction="sum")
        return total / (targets != IGNORE).sum().clamp(min=1)

    def training_answer(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """With the auxiliary head's part."""
        maps = self.pyramid(self.backbone, images)
        output = resize_to(self.head(maps), images)
        loss = self.loss(output, targets)
        if self.auxiliary is None:
            return loss, output
        more = self.loss(resize_to(self.auxiliary(maps[-2]), images), targets)
        return loss + self.options.auxiliary * more, output

    def imitations(self) -> Mapping[str, Imitation]:
        """The probabilities of each pixel, or where each class is."""
        return {"logits": soft_labels, "channels": channels}

    def decoding(self) -> dict[str, Any]:
        """How images of another size are treated."""
        return super().decoding() | {"frame": "letterbox", "inference": self.options.inference}

    def metrics(self) -> MetricCollection:
        """``miou`` over the classes that occur, ``pixel_accuracy``, and ``iou_per_class``."""
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

        same: dict[str, Any] = {"num_classes": len(self.classes), "ignore_index": IGNORE, "validate_args": False}
        return MetricCollection(
            {
                "miou": MulticlassJaccardIndex(average="macro", **same),
                "pixel_accuracy": MulticlassAccuracy(average="micro", **same),
                "iou_per_class": MulticlassJaccardIndex(average="none", **same),
            },
            compute_groups=False,
        )

    def findings(self) -> PixelFindings:
        """Confusions, and the worst images."""
        return PixelFindings(self.classes, IGNORE)

    @classmethod
    def in_words(cls, report: Mapping[str, Any], findings: Mapping[str, Any], images: str) -> str:
        right, overlap = report.get("pixel_accuracy"), report.get("miou")
        if right is None or overlap is None:
            return super().in_words(report, findings, images)
        return (
            f"On {images}, {out_of(MILLION * right, MILLION)} pixels get the right class, and the area of a class "
            f"overlaps the true one by {100 * overlap:.0f} % on average (mIoU; 100 % is perfect)."
        )


class SegmentationAnswers(Answers[SegmentationTask, Segmentation]):
    """The class of every pixel."""

    columns = {"class": "text", "share": "percent"}

    def decode(self, output: Tensor) -> list[Segmentation]:
        """Logits (b, num_classes, h, w) to the most probable class of every pixel."""
        return [self._describe(labels) for labels in output.argmax(1).to(torch.uint8).cpu()]

    def predict(
        self, images: Sequence[Tensor], preprocessing: Preprocessing, top_k: int | None = None
    ) -> list[Segmentation]:
        """Classes of pixels at each image's own size, from the shrunk image or from windows."""
        inference, how = self.task.options.inference, preprocessing.to_dict()
        labels = (label_pixels(self.raw, image.permute(1, 2, 0).numpy(), how, inference) for image in images)
        return [self._describe(torch.from_numpy(one), top_k) for one in labels]

    def _describe(self, labels: Tensor, top_k: int | None = None) -> Segmentation:
        return Segmentation(labels, tuple(class_shares(labels.numpy(), self.task.classes)[:top_k]))

    def rows(self, answer: Segmentation) -> list[tuple[Any, ...]]:
        """One a class."""
        return [(name, share) for name, _, share in answer.shares]

    def to_dict(self, answer: Segmentation) -> dict[str, Any]:
        """``classes``: label, index and share of each."""
        return {"classes": [{"label": name, "index": index, "share": share} for name, index, share in answer.shares]}

    def truth(self, target: Tensor) -> Segmentation:
        """A mask (h, w); what is ignored stays uncoloured."""
        return Segmentation(target, ())

    difference = "green: right; red: wrong"

    def draw_difference(self, image: Tensor, answer: Segmentation, target: Tensor) -> Tensor:
        """The image under green where the class is right, under red where it is wrong; what is ignored is plain."""
        known = target != IGNORE
        same = answer.labels == target
        return draw_verdicts(image, same & known, ~same & known)

    def draw(self, image: Tensor, answer: Segmentation) -> Tensor:
        """The image under transparent colours, one a class."""
        count = len(self.task.classes)
        shown = [index for index in answer.labels.unique().tolist() if index < count]
        return draw_masks(image, [(answer.labels == index, index) for index in shown], count)


SEGMENTATION = TaskKind(
    task=SegmentationTask,
    build=lambda backbone, spec, options: SegmentationTask(
        backbone, spec.classes, options, label_smoothing=spec.label_smoothing
    ),
    answers=SegmentationAnswers,
    load_data=load_masks,
    options=SegmentationOptions,
)
