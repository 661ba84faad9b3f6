"""Detection: boxes and classes of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import box_iou

from vitrail.core.errors import ConfigError
from vitrail.core.types import ImageSize, Preprocessing
from vitrail.data import Letterbox, load_boxes
from vitrail.device.answer import objects_in_picture
from vitrail.device.outputs import find_objects
from vitrail.layers.query_detector import QueryKind
from vitrail.models import Backbone
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import Score, Task
from vitrail.tasks.drawing import draw_boxes, draw_judged
from vitrail.tasks.findings.object_findings import CONFUSED, FOUND, ObjectFindings, judge_objects
from vitrail.tasks.findings.plain_words import out_of
from vitrail.tasks.heads.pyramid import FeaturePyramidNetwork, Pyramid
from vitrail.tasks.heads.queries import NUM_LEVELS, QueryDetector
from vitrail.tasks.heads.retinanet import ANCHOR_SCALE, RetinaNet
from vitrail.tasks.heads.two_stage import MASK_OUT, RegionDetector
from vitrail.tasks.imitation import Imitation, anchored_rows, matched_rows, painted
from vitrail.tasks.kind import TaskKind

if TYPE_CHECKING:
    from torchmetrics import Metric

    from vitrail.tasks.metrics.confidence import ConfidenceSearch

BACKGROUND_WEIGHT = 0.1
"""Weight of a place without an object, in what is learnt from a teacher's maps; an object's is its probability."""

MIN_CONFIDENCE = 0.5
"""Least probability of an object in an answer, until evaluation has found the best one for the model."""


@dataclass(frozen=True, kw_only=True)
class DetectionOptions:
    """
    Attributes:
        head: detector: "retinanet" (one stage), "fasterrcnn" (two), "cascade" (two, refined three times), or "dfine" or
            "rtdetrv2" of transformers, which give no duplicates.
        width: number of channels of the pyramid and the head.
        extra_levels: levels of doubled stride below the backbone's coarsest one, for large objects; for heads with
            anchors.
        anchor_scale: side of the smallest anchor boxes of a level, in its strides (twice that in a head of two stages),
            for heads with anchors; 2 finds objects of half the size.
        proposals: number of proposals of a head of two stages, or of queries: rows of the output, except retinanet's.
        score_threshold: least probability of an object that counts in the average precision.
        nms_threshold: overlap above which the less probable of two objects of one class is dropped, by heads that give
            duplicates.
        max_objects: largest number of objects an image, unless the question names another.
    """

    head: Literal["retinanet", "fasterrcnn", "cascade", "dfine", "rtdetrv2"] = "retinanet"
    width: int = 128
    extra_levels: int = 1
    anchor_scale: float = ANCHOR_SCALE
    proposals: int = 100
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_objects: int = 100

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ConfigError("is not a multiple of 8; 128 is usual", width=self.width)
        for name, least in (("extra_levels", 0), ("max_objects", 1), ("proposals", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"is below {least}", **{name: getattr(self, name)})
        if not 0.5 <= self.anchor_scale <= 32:
            raise ConfigError("is outside [0.5, 32]; 4 is usual", anchor_scale=self.anchor_scale)
        for name in ("score_threshold", "nms_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError("is outside (0, 1)", **{name: getattr(self, name)})


@dataclass(frozen=True)
class DetectedObject:
    """One object: ``box`` is left, top, right, bottom in pixels of the image."""

    label: str
    index: int
    probability: float
    box: tuple[float, float, float, float]


class DetectionTask(Task):
    """A head on a feature pyramid: RetinaNet, as EdgeViT is published with it, Faster R-CNN, or Cascade R-CNN.

    ``forward`` gives (b, n, 4 + classes), a row for every anchor (one stage) or proposal (two): the boxes as shares of
    the frame, and logits; suppression of duplicates is left to :meth:`find_objects`, so that exported files have one
    output of fixed shape.

    Args:
        backbone: any, see :class:`~vitrail.tasks.heads.pyramid.Pyramid`; the anchors are those of its image size.
        classes: names, in the order of the labels.
        options: head and decoding.
    """

    name = "detection"
    scores: ClassVar[tuple[Score, ...]] = (Score(name="map", title="mAP"), Score(name="map_50", title="mAP at IoU 0.5"))
    crop_fraction = 1.0
    usual_epochs = 50
    output_name = "boxes_and_logits"
    masks: ClassVar[bool] = False
    bounds = "object"
    min_confidence = MIN_CONFIDENCE

    def __init__(self, backbone: Backbone, classes: Sequence[str], options: DetectionOptions | None = None) -> None:
        super().__init__(backbone, classes)
        if not self.classes:
            raise ConfigError("there are no classes to detect; give at least 1")
        self.options = options or DetectionOptions()
        width = self.options.width
        self.pyramid = Pyramid(backbone)
        one_stage = self.options.head == "retinanet"
        self.row_parts = () if one_stage else (4, len(self.classes), *((MASK_OUT**2,) if self.masks else ()))
        self.queries = self.options.head in get_args(QueryKind)
        # the finest of four levels has the most anchors, and helps least where every place is classified
        every_place = self.queries or one_stage
        self.first = max(len(self.pyramid.strides) - NUM_LEVELS, 0) if every_place else 0
        self.fpn = None if self.queries else FeaturePyramidNetwork(self.pyramid.channels[self.first :], width)
        self.extra = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=2, padding=1)
            for _ in range(0 if self.queries else self.options.extra_levels)
        )
        self.head = self._make_head()

    def _make_head(self) -> RetinaNet | RegionDetector | QueryDetector:
        size = self.backbone.config.image_size
        shapes, width = self._shapes(size), self.options.width
        if self.options.head in ("dfine", "rtdetrv2"):
            return QueryDetector(
                self.options.head,
                self.pyramid.channels[self.first :],
                shapes,
                size,
                len(self.classes),
                width=width,
                num_queries=self.options.proposals,
            )
        if self.options.head == "retinanet":
            return RetinaNet(width, len(self.classes), size, shapes, anchor_scale=self.options.anchor_scale)
        return RegionDetector(
            width,
            len(self.classes),
            size,
            shapes,
            strides=self.pyramid.strides,
            num_stages=3 if self.options.head == "cascade" else 1,
            masks=self.masks,
            num_proposals=self.options.proposals,
            anchor_scale=self.options.anchor_scale,
        )

    def _levels(self, images: Tensor) -> list[Tensor]:
        maps = self.pyramid(self.backbone, images)[self.first :]
        if self.fpn is None:
            return maps
        levels = self.fpn(maps)
        for conv in self.extra:
            levels.append(conv(levels[-1]))
        return levels

    @torch.no_grad()
    def _shapes(self, size: ImageSize) -> list[ImageSize]:
        """(rows, columns) of every level."""
        training = self.training
        self.eval()
        levels = self._levels(torch.zeros(1, self.backbone.config.in_chans, *size))
        self.train(training)
        return [(level.shape[-2], level.shape[-1]) for level in levels]

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) of the model's size to (b, n, 4 + classes)."""
        self.backbone.require_built_size(images.shape[-2], images.shape[-1], "set of anchors")
        output: Tensor = self.head(self._levels(images))
        return output

    def loss(self, output: Tensor, targets: list[dict[str, Tensor]]) -> Tensor:
        """See :meth:`RetinaNet.loss <vitrail.tasks.heads.retinanet.RetinaNet.loss>`,
        :meth:`RegionDetector.loss <vitrail.tasks.heads.two_stage.RegionDetector.loss>` and
        :meth:`QueryDetector.loss <vitrail.tasks.heads.queries.QueryDetector.loss>`."""
        return self.head.loss(output, targets)

    def training_answer(self, images: Tensor, targets: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor | None]:
        """Heads of two stages and of queries learn from more than their answers; those of two stages make none."""
        self.backbone.require_built_size(images.shape[-2], images.shape[-1], "set of anchors")
        levels = self._levels(images)
        if isinstance(self.head, RetinaNet):
            output = self.head(levels)
            return self.head.loss(output, targets), output
        if isinstance(self.head, QueryDetector):
            return self.head.training_answer(levels, targets)
        return self.head.training_loss(levels, targets), None

    def imitations(self) -> Mapping[str, Imitation]:
        """Boxes and probabilities of each anchor, or of what queries found; nothing for heads of two stages."""
        if isinstance(self.head, RegionDetector):
            return {}
        return {"logits": matched_rows if self.queries else anchored_rows}

    def differs_from(self, teacher: Task) -> str:
        other = teacher.head if isinstance(teacher, DetectionTask) else None
        if type(other) is not type(self.head):
            named = teacher.options.head if isinstance(teacher, DetectionTask) else "another"
            return f"its head is {named}, whose rows mean something else than those of {self.options.head}"
        if not isinstance(other, RetinaNet) or not isinstance(self.head, RetinaNet):
            return ""
        alike = other.anchors.shape == self.head.anchors.shape and torch.allclose(
            other.anchors, self.head.anchors.to(other.anchors.device), atol=1e-4
        )
        return "" if alike else "its anchors are others (image size, levels or anchor_scale)"

    def choose_classes(self, output: Tensor, places: Sequence[int]) -> Tensor:
        return torch.cat([output[..., :4], output[..., [4 + place for place in places]]], -1)

    def importance(self, output: Tensor, size: tuple[int, int]) -> Tensor:
        """How probable an object is that covers the place; the background teaches a little, too."""
        found = self.find_objects(output)
        return torch.stack([painted(one["boxes"], one["scores"], size) for one in found]).clamp(min=BACKGROUND_WEIGHT)

    def find_objects(self, output: Tensor) -> list[dict[str, Tensor]]:
        """(b, n, 4 + classes) to ``boxes`` (shares of the frame), ``scores``, ``labels`` an image, best first, and
        ``masks``: all that count in the average precision."""
        limits = self.limits() | {"min_confidence": self.options.score_threshold}
        found = []
        for values in output.detach().float().cpu().numpy():
            arrays = find_objects(values, len(self.classes), **limits)
            one = {name: torch.from_numpy(array).to(output.device) for name, array in arrays.items()}
            grids = one.pop("grids")
            found.append(one | ({"masks": grids} if self.masks else {}))
        return found

    def limits(self, max_objects: int | None = None) -> dict[str, Any]:
        """Arguments of :func:`vitrail.device.outputs.find_objects` for answers."""
        return {
            "min_confidence": self.min_confidence,
            "nms_threshold": None if self.queries else self.options.nms_threshold,
            "max_objects": max_objects or self.options.max_objects,
        }

    def decoding(self) -> dict[str, Any]:
        """The limits of answers."""
        return super().decoding() | {"frame": "letterbox"} | self.limits()

    def metrics(self) -> Metric:
        """COCO's ``map`` and ``map_50``, and ``ap_per_class``.

        Raises:
            MissingDependencyError: pycocotools is not installed.
        """
        from vitrail.data import require_pycocotools
        from vitrail.tasks.metrics.average_precision import BoxMetric

        require_pycocotools()
        return BoxMetric(self.find_objects, len(self.classes))

    def confidence_search(self) -> ConfidenceSearch:
        """The search for the probability with the best F1."""
        from vitrail.tasks.metrics.confidence import ConfidenceSearch

        return ConfidenceSearch(self.find_objects, self.options.score_threshold)

    def findings(self) -> ObjectFindings:
        """What is found, missed, invented and confused, from :attr:`min_confidence` on."""
        least, size = self.min_confidence or MIN_CONFIDENCE, self.backbone.config.image_size
        return ObjectFindings(self.find_objects, self.classes, least=least, size=size)

    @classmethod
    def in_words(cls, report: Mapping[str, Any], findings: Mapping[str, Any], images: str) -> str:
        right, facts = findings.get("right"), findings.get("numbers", {})
        if not right or not right["of"]:
            return super().in_words(report, findings, images)
        found = f"On {images}, it finds {out_of(right['count'], right['of'])} objects"
        if not (named := facts.get("named")):
            return f"{found}: it names none."
        wrong = facts.get("invented", 0) + facts.get("confused", 0)
        if not wrong:
            return f"{found}, and all that it names are right."
        return f"{found}. Of those that it names, {out_of(wrong, named)} are wrong (false alarms, or another class)."

    def agreement(self, output: Tensor, reference: Tensor) -> float:
        """Share of images whose most probable object has the same class and overlaps by half in both."""
        count = len(self.classes)
        same = []
        for pair in zip(output.float(), reference.float(), strict=True):
            best = [int(values[:, 4 : 4 + count].flatten().argmax()) for values in pair]
            ours, theirs = (values[i // count, None, :4] for values, i in zip(pair, best, strict=True))
            same.append(best[0] % count == best[1] % count and bool(box_iou(ours, theirs) >= 0.5))
        return sum(same) / max(len(same), 1)


class DetectionAnswers(Answers[DetectionTask, tuple[DetectedObject, ...]]):
    """The objects of each image, the most probable first."""

    columns = {
        "class": "text",
        "probability": "percent",
        "left": "number",
        "top": "number",
        "right": "number",
        "bottom": "number",
    }

    def decode(self, output: Tensor) -> list[tuple[DetectedObject, ...]]:
        """Objects in shares of the frame, the most probable first."""
        rows, count = output.detach().float().cpu().numpy(), len(self.task.classes)
        return [self._objects(find_objects(values, count, **self.task.limits()), (1, 1)) for values in rows]

    def _objects(self, found: dict[str, NDArray[Any]], size: ImageSize) -> tuple[DetectedObject, ...]:
        """Objects found in an image of ``size``."""
        rows = zip(*(found[name].tolist() for name in ("labels", "scores", "boxes")), strict=True)
        return tuple(DetectedObject(self.task.classes[i], i, score, tuple(box)) for i, score, box in rows)

    def predict(
        self, images: Sequence[Tensor], preprocessing: Preprocessing, top_k: int | None = None
    ) -> list[tuple[DetectedObject, ...]]:
        """Objects in pixels of each image, the most probable first."""
        frame, count, limits = preprocessing.image_size, len(self.task.classes), self.task.limits(top_k)
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        framed = [
            Letterbox.of(size, frame).image(image, preprocessing) for size, image in zip(sizes, images, strict=True)
        ]
        output = self.raw(preprocessing.normalize(torch.stack(framed)).numpy())
        return [
            self._objects(objects_in_picture(values, count, size, frame, **limits), size)
            for values, size in zip(output, sizes, strict=True)
        ]

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
        return tuple(DetectedObject(self.task.classes[index], index, 1.0, tuple(box)) for index, box in rows)

    difference = "green: found; red, dashed: missed; orange: false alarm; violet: another class"

    def draw_difference(
        self, image: Tensor, answer: tuple[DetectedObject, ...], target: Mapping[str, Tensor]
    ) -> Tensor:
        """Boxes of found objects, false alarms and confused ones with their class, and of what was missed."""
        found = {
            "boxes": torch.tensor([one.box for one in answer], dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([one.index for one in answer], dtype=torch.int64),
            "scores": torch.tensor([one.probability for one in answer]),
        }
        judged = judge_objects(found, target)
        verdicts = {FOUND: "found", CONFUSED: "confused"}
        boxes = [
            (box, self.task.classes[label], verdicts.get(kind, "invented"))
            for box, label, kind in zip(
                judged.boxes.tolist(), judged.labels.tolist(), judged.kinds.tolist(), strict=True
            )
        ]
        single = target["boxes"][~target["iscrowd"]].tolist()
        names = [self.task.classes[label] for label in judged.given.tolist()]
        return draw_judged(image, boxes + [(single[place], names[place], "missed") for place in judged.missed])

    def draw(self, image: Tensor, answer: tuple[DetectedObject, ...]) -> Tensor:
        """Boxes and labels."""
        return draw_boxes(image, [(one.box, one.index) for one in answer], self.task.classes)


DETECTION = TaskKind(
    task=DetectionTask,
    build=lambda backbone, spec, options: DetectionTask(backbone, spec.classes, options),
    answers=DetectionAnswers,
    load_data=load_boxes,
    options=DetectionOptions,
)
