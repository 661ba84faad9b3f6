"""Where are which objects?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import batched_nms, box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from vitrail.core.errors import ConfigError
from vitrail.core.types import ImageSize, Preprocessing
from vitrail.data import BoxSet, DataConfig, DataSplits, Letterbox, load_boxes
from vitrail.models import Backbone
from vitrail.tasks.base import Score, Task, entry
from vitrail.tasks.colours import class_colours, draw_boxes
from vitrail.tasks.pyramid import FeaturePyramidNetwork, Pyramid

if TYPE_CHECKING:
    from torchmetrics import Metric

SCALES = tuple(4 * 2 ** (i / 3) for i in range(3))
"""Sides of anchors, in strides of their level, as in RetinaNet."""
RATIOS = (0.5, 1.0, 2.0)
"""Heights over widths."""
FOREGROUND, BACKGROUND = 0.5, 0.4
"""Overlap with an object from which an anchor stands for it, and below which it stands for nothing."""
MOST_CANDIDATES = 1000
LARGEST_GROWTH = math.log(1000 / 16)


@dataclass(frozen=True, kw_only=True)
class DetectionOptions:
    """
    Attributes:
        width: channels of pyramid and head.
        extra_levels: levels of doubled stride below the backbone's coarsest one, for large objects.
        score_threshold: least probability of an object that is reported.
        nms_threshold: overlap above which the less probable of two objects of one class is dropped.
        max_objects: at most so many objects an image.
    """

    width: int = 128
    extra_levels: int = 1
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_objects: int = 100

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8 or self.extra_levels < 0 or self.max_objects < 1:
            raise ConfigError(
                f"width={self.width}, extra_levels={self.extra_levels}, max_objects={self.max_objects}: need a "
                f"multiple of 8, 0 or more, 1 or more"
            )
        for name in ("score_threshold", "nms_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is outside (0, 1)")


@dataclass(frozen=True)
class DetectedObject:
    """One object: ``box`` is left, top, right, bottom in pixels of the image."""

    label: str
    index: int
    probability: float
    box: tuple[float, float, float, float]


class DetectionTask(Task):
    """RetinaNet (Lin et al., ICCV 2017, arXiv:1708.02002) with torchvision's head, as EdgeViT is published with it.

    Focal loss for the classes, generalised IoU for the boxes. ``forward`` gives (b, anchors, 4 + classes): the boxes as
    shares of the frame, and logits; suppression of duplicates is left to :meth:`predict`, so that exported files have
    one output of fixed shape.

    Args:
        backbone: any, see :class:`~vitrail.tasks.pyramid.Pyramid`; the anchors are those of its image size.
        classes: names, in the order of the labels.
        options: head and decoding.
    """

    name = "detection"
    scores = (Score(name="map", title="mAP"), Score(name="map_50", title="mAP at IoU 0.5"))
    columns = {
        "class": "text",
        "probability": "percent",
        "left": "number",
        "top": "number",
        "right": "number",
        "bottom": "number",
    }
    Options = DetectionOptions
    crop_fraction = 1.0
    output_name = "boxes_and_logits"
    anchors: Tensor

    def __init__(self, backbone: Backbone, classes: Sequence[str], options: DetectionOptions | None = None) -> None:
        super().__init__(backbone, classes)
        if not self.classes:
            raise ConfigError("there are no classes to detect; give at least 1")
        self.options = options or DetectionOptions()
        width = self.options.width
        self.pyramid = Pyramid(backbone)
        self.first = max(len(self.pyramid.strides) - 3, 0)  # the finest of four levels has most anchors, and least use
        self.fpn = FeaturePyramidNetwork(self.pyramid.channels[self.first :], width)
        self.extra = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(self.options.extra_levels)
        )
        # GroupNorm: the head is shared by levels of different statistics, and detection batches are small
        norm = partial(nn.GroupNorm, width // 8)
        self.head = RetinaNetHead(width, len(SCALES) * len(RATIOS), len(self.classes), norm_layer=norm)
        anchors = self._make_anchors(backbone.config.image_size)
        self.register_buffer("anchors", anchors, persistent=False)

    @classmethod
    def load_data(cls, config: DataConfig, *, progress: bool = False) -> DataSplits[BoxSet]:
        """COCO JSON or YOLO text: :func:`vitrail.data.load_boxes`."""
        return load_boxes(config, progress=progress)

    @classmethod
    def create(cls, backbone: Backbone, description: Mapping[str, Any]) -> Self:
        """From ``classes`` and the options."""
        classes = [str(name) for name in entry(description, "classes", list | tuple)]
        return cls(backbone, classes, cls.read_options(description))

    def _levels(self, images: Tensor) -> list[Tensor]:
        levels = self.fpn(self.pyramid(self.backbone, images)[self.first :])
        for conv in self.extra:
            levels.append(conv(levels[-1]))
        return levels

    @torch.no_grad()
    def _make_anchors(self, size: ImageSize) -> Tensor:
        """(n, 4): centre x, centre y, width, height as shares of the frame, level by level as the head orders them."""
        training = self.training
        self.eval()
        shapes = [level.shape[-2:] for level in self._levels(torch.zeros(1, self.backbone.config.in_chans, *size))]
        self.train(training)
        found = []
        for rows, columns in shapes:
            y, x = torch.meshgrid(
                (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij"
            )
            stride = (size[0] / rows, size[1] / columns)
            sides = [
                (scale * ratio**-0.5 * stride[1] / size[1], scale * ratio**0.5 * stride[0] / size[0])
                for ratio in RATIOS
                for scale in SCALES
            ]
            centres = torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, len(sides), 2)
            found.append(torch.cat([centres, torch.tensor(sides).expand(len(centres), -1, 2)], -1).reshape(-1, 4))
        return torch.cat(found)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) of the model's size to (b, anchors, 4 + classes)."""
        self.backbone.require_built_size(images.shape[-2], images.shape[-1], "set of anchors")
        raw = self.head(self._levels(images))
        offsets, anchors = raw["bbox_regression"].float(), self.anchors
        centres = anchors[:, :2] + offsets[..., :2] * anchors[:, 2:]
        halves = anchors[:, 2:] * offsets[..., 2:].clamp(max=LARGEST_GROWTH).exp() / 2
        return torch.cat([centres - halves, centres + halves, raw["cls_logits"].float()], dim=-1)

    def loss(self, output: Tensor, targets: list[dict[str, Tensor]]) -> Tensor:
        """Focal loss of all clear anchors plus generalised IoU loss of those that stand for an object, a mean over the
        images, each divided by its number of such anchors."""
        losses = []
        for values, target in zip(output, targets, strict=True):
            boxes, logits = values[:, :4], values[:, 4:]
            matched = self._match(target)
            positive = matched >= 0
            count = positive.sum().clamp(min=1)
            wanted = torch.zeros_like(logits)
            wanted[positive, target["labels"][matched[positive]]] = 1.0
            clear = matched != -2
            focal = sigmoid_focal_loss(logits[clear], wanted[clear], reduction="sum")
            overlap = generalized_box_iou_loss(boxes[positive], target["boxes"][matched[positive]], reduction="sum")
            losses.append((focal + overlap) / count)
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _match(self, target: dict[str, Tensor]) -> Tensor:
        """For each anchor: the object it stands for, -1 for nothing, -2 where that is unclear."""
        own = self.anchors.to(target["boxes"].device)  # files are judged on the CPU, whatever the model is on
        anchors = torch.cat([own[:, :2] - own[:, 2:] / 2, own[:, :2] + own[:, 2:] / 2], 1)
        matched = torch.full((len(anchors),), -1, device=anchors.device)
        if len(target["boxes"]) == 0:
            return matched
        overlap = box_iou(target["boxes"], anchors)
        best, which = overlap.max(0)
        matched[best >= BACKGROUND] = -2
        matched[best >= FOREGROUND] = which[best >= FOREGROUND]
        # an object that no anchor covers well gets the ones that cover it best
        top = overlap.max(1, keepdim=True).values
        objects, places = ((overlap == top) & (top > 0)).nonzero(as_tuple=True)
        matched[places] = objects
        crowd = target["iscrowd"]
        matched[(matched >= 0) & crowd[matched.clamp(min=0)]] = -2
        return matched

    def decode(self, output: Tensor) -> list[dict[str, Tensor]]:
        """(b, anchors, 4 + classes) to ``boxes`` (shares of the frame), ``scores``, ``labels`` an image, best first."""
        found = []
        for values in output.float():
            probabilities = values[:, 4:].sigmoid().flatten()
            candidates = (probabilities > self.options.score_threshold).nonzero().squeeze(1)
            order = probabilities[candidates].argsort(descending=True, stable=True)[:MOST_CANDIDATES]
            chosen = candidates[order]
            boxes = values[chosen // len(self.classes), :4].clamp(0, 1)
            labels, scores = chosen % len(self.classes), probabilities[chosen]
            kept = batched_nms(boxes, scores, labels, self.options.nms_threshold)[: self.options.max_objects]
            found.append({"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]})
        return found

    def predict(self, output: Tensor) -> list[tuple[DetectedObject, ...]]:
        """Objects in shares of the frame, the most probable first."""
        return [self._objects(one, torch.ones(4), torch.ones(4)) for one in self.decode(output)]

    def _objects(self, found: dict[str, Tensor], scale: Tensor, limit: Tensor) -> tuple[DetectedObject, ...]:
        boxes = torch.minimum(found["boxes"].cpu() * scale, limit).tolist()
        rows = zip(found["labels"].tolist(), found["scores"].tolist(), boxes, strict=True)
        return tuple(DetectedObject(self.classes[i], i, score, tuple(box)) for i, score, box in rows)

    def metrics(self) -> Metric:
        """COCO's ``map`` and ``map_50``, and ``ap_per_class``.

        Raises:
            MissingDependencyError: pycocotools is not installed.
        """
        from vitrail.tasks.box_metric import BoxMetric, require_pycocotools

        require_pycocotools()
        return BoxMetric(self.decode, len(self.classes))

    def agreement(self, output: Tensor, reference: Tensor) -> float:
        """Share of images whose most probable object is the same anchor and class in both."""
        ours, theirs = (values[..., 4:].flatten(1).argmax(1) for values in (output, reference))
        return float((ours == theirs).double().mean())

    def answer(
        self, images: Sequence[Tensor], preprocessing: Preprocessing, top_k: int | None = None
    ) -> list[tuple[DetectedObject, ...]]:
        """Objects in pixels of each image, the most probable first."""
        frame = preprocessing.image_size
        boxes = [Letterbox.of((image.shape[-2], image.shape[-1]), frame) for image in images]
        framed = torch.stack([box.image(image, preprocessing) for box, image in zip(boxes, images, strict=True)])
        with torch.inference_mode():
            found = self.decode(self(preprocessing.normalize(framed.to(self.anchors.device))))
        answers = []
        for box, one in zip(boxes, found, strict=True):
            scale = torch.tensor([frame[1] / box.scale[0], frame[0] / box.scale[1]] * 2)
            limit = torch.tensor([box.original[1], box.original[0]] * 2, dtype=torch.float32)
            answers.append(self._objects(one, scale, limit)[:top_k])
        return answers

    def rows(self, answer: tuple[DetectedObject, ...]) -> list[tuple[Any, ...]]:
        """One an object."""
        return [(one.label, one.probability, *one.box) for one in answer]

    def to_dict(self, answer: tuple[DetectedObject, ...]) -> dict[str, Any]:
        """``objects``: label, index, probability, box."""
        return {
            "objects": [
                {"label": one.label, "index": one.index, "probability": one.probability, "box": list(one.box)}
                for one in answer
            ]
        }

    def truth(self, target: dict[str, Tensor]) -> tuple[DetectedObject, ...]:
        """The annotated boxes."""
        rows = zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True)
        return tuple(DetectedObject(self.classes[index], index, 1.0, tuple(box)) for index, box in rows)

    def draw(self, image: Tensor, answer: tuple[DetectedObject, ...]) -> Tensor:
        """Boxes and labels; objects less probable than one half are left out."""
        colours = class_colours(len(self.classes)).tolist()
        return draw_boxes(
            image, [(one.box, one.label, tuple(colours[one.index])) for one in answer if one.probability >= 0.5]
        )
