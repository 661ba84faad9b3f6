"""Pose: the keypoints of one object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import load_keypoints, mirror_order
from vitrail.device.answer import mean_maps, places_in_picture
from vitrail.device.outputs import find_keypoints
from vitrail.device.pixels import normalise, view
from vitrail.models import Backbone
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import Score, Task
from vitrail.tasks.drawing import draw_offsets, draw_skeleton
from vitrail.tasks.findings.keypoint_findings import KeypointFindings
from vitrail.tasks.findings.plain_words import out_of
from vitrail.tasks.heads.pyramid import choose_levels
from vitrail.tasks.imitation import Imitation, squares
from vitrail.tasks.kind import TaskKind
from vitrail.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from torchmetrics import Metric


@dataclass(frozen=True, kw_only=True)
class PoseOptions:
    """
    Attributes:
        decoder: head: "classic", transposed convolutions; or "simple", enlargement and one convolution (ViTPose, Xu et
            al., NeurIPS 2022, arXiv:2204.12484).
        width: number of channels of the transposed convolutions.
        stride: pixels of the image for one pixel of the heat map; a backbone of stride 32 needs three transposed
            convolutions for 4, one of stride 16 two.
        sigma: spread of the target peak, in pixels of the heat map.
        flip_test: average the answers over the image and its mirror image.
        threshold: least score of a keypoint that is drawn.
    """

    decoder: Literal["classic", "simple"] = "classic"
    width: int = 128
    stride: int = 4
    sigma: float = 1.5
    flip_test: bool = True
    threshold: float = 0.2

    def __post_init__(self) -> None:
        for name in ("width", "stride"):
            if getattr(self, name) < 1:
                raise ConfigError("is below 1", **{name: getattr(self, name)})
        if self.sigma <= 0:
            raise ConfigError("is not above 0; 1.5 is usual", sigma=self.sigma)
        if not 0 <= self.threshold <= 1:
            raise ConfigError("is outside [0, 1]", threshold=self.threshold)


@dataclass(frozen=True)
class Keypoint:
    """A place in pixels of the image; ``score`` is the height of the heat map there."""

    label: str
    index: int
    x: float
    y: float
    score: float


class PoseTask(Task):
    """Top-down heat maps (Simple Baselines, Xiao et al., ECCV 2018, arXiv:1804.06208), the decoder that ViTAEv2 is
    published with on AP-10K: three transposed convolutions at stride 32. At stride 16 these are two, which ViTPose
    calls the classic decoder; its simple one is there too.

    An image shows one object; ``forward`` gives (b, keypoints, h / stride, w / stride).

    Args:
        backbone: any; its last level is taken.
        classes: names of the keypoints.
        options: head and decoding.
        skeleton: pairs of keypoints that pictures join.
        mirror: for each keypoint, the index of the one that takes its place in a mirror image; empty if that is
            unknown; None to read it from the names, see :func:`vitrail.data.mirror_order`.
    """

    name = "pose"
    scores = (
        Score(name="pck", title="PCK at 0.1"),
        Score(name="oks_ap", title="OKS AP"),
    )
    crop_fraction = 1.0
    usual_epochs = 40
    output_name = "heatmaps"

    def __init__(
        self,
        backbone: Backbone,
        classes: Sequence[str],
        options: PoseOptions | None = None,
        *,
        skeleton: Sequence[tuple[int, int]] = (),
        mirror: Sequence[int] | None = None,
    ) -> None:
        super().__init__(backbone, classes)
        if not self.classes:
            raise ConfigError("there are no keypoints; give the names of at least 1")
        self.options = options or PoseOptions()
        self.skeleton = tuple(skeleton)
        self.mirror = mirror_order(self.classes) if mirror is None else tuple(mirror)
        self.level = choose_levels(backbone.feature_info)[-1]
        info = backbone.feature_info[self.level]
        count = max(round(math.log2(info.stride / self.options.stride)), 0)
        self.head = self._make_head(info.channels, count)

    def _make_head(self, width: int, count: int) -> nn.Sequential:
        """``count`` doublings of the map."""
        if self.options.decoder == "simple":
            larger = nn.Upsample(scale_factor=2**count, mode="bilinear") if count else nn.Identity()
            return nn.Sequential(nn.ReLU(), larger, nn.Conv2d(width, len(self.classes), 3, padding=1))
        channels = [width] + [self.options.width] * count
        return nn.Sequential(
            *(_enlarge(before, after) for before, after in pairwise(channels)),
            nn.Conv2d(channels[-1], len(self.classes), 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) to heat maps (b, keypoints, rows, columns)."""
        (level,) = self.backbone.forward_intermediates(images, [self.level], norm=True, intermediates_only=True)
        return self.head(level)

    def loss(self, output: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Mean squared distance from Gaussian peaks, of labelled keypoints, times the number of pixels a peak has."""
        labelled = targets["keypoints"][..., 2]
        wanted = self.peaks(targets["keypoints"], (output.shape[-2], output.shape[-1]))
        squares = (output.float() - wanted).square().mean((2, 3)) * labelled
        scale = output.shape[-2] * output.shape[-1] / (2 * math.pi * self.options.sigma**2)
        return scale * squares.sum() / labelled.sum().clamp(min=1)

    def peaks(self, keypoints: Tensor, size: tuple[int, int]) -> Tensor:
        """Gaussians of height 1 (b, j, rows, columns) at places (b, j, 2 or more), shares of the frame."""
        rows, columns = size
        y = (torch.arange(rows, device=keypoints.device) + 0.5 - keypoints[..., 1:2] * rows) / self.options.sigma
        x = (torch.arange(columns, device=keypoints.device) + 0.5 - keypoints[..., 0:1] * columns) / self.options.sigma
        return torch.exp(-(y.square().unsqueeze(-1) + x.square().unsqueeze(-2)) / 2)

    def locate(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Places (b, j, 2) as shares of the frame, and scores (b, j): :func:`vitrail.device.outputs.find_keypoints`."""
        places, scores = find_keypoints(output.detach().float().cpu().numpy(), self.options.sigma)
        return torch.from_numpy(places).float(), torch.from_numpy(scores)

    def imitations(self) -> Mapping[str, Imitation]:
        """The heat maps."""
        return {"logits": squares}

    def differs_from(self, teacher: Task) -> str:
        own, other = self.options.sigma, teacher.options.sigma if isinstance(teacher, PoseTask) else self.options.sigma
        return "" if own == other else f"its peaks have sigma={other:g}, and those of the student {own:g}"

    def decoding(self) -> dict[str, Any]:
        """The spread of the peaks, and how a mirror image is averaged in."""
        options, mirror = self.options, list(self.mirror)
        return super().decoding() | {
            "frame": "view",
            "sigma": options.sigma,
            "flip_test": options.flip_test,
            "mirror": mirror,
        }

    def metrics(self) -> Metric:
        """``pck`` (labelled keypoints that are off by less than a tenth of the object's longer side), ``oks_ap``, and
        ``pck_per_class``."""
        from vitrail.tasks.metrics.keypoint_accuracy import PoseMetric

        return PoseMetric(self.locate, len(self.classes))

    def findings(self) -> KeypointFindings:
        """How far the keypoints are off, beside the mean pose."""
        return KeypointFindings(self.locate, self.classes)

    @classmethod
    def in_words(cls, report: Mapping[str, Any], findings: Mapping[str, Any], images: str) -> str:
        right = findings.get("right")
        if not right or not right["of"]:
            return super().in_words(report, findings, images)
        share = out_of(right["count"], right["of"])
        return f"On {images}, {share} keypoints are in the right place (off by less than a tenth of the object's size)."

    def agreement(self, output: Tensor, reference: Tensor) -> float:
        """Share of keypoints whose largest value is at the same place of the heat map in both."""
        return float((output.flatten(2).argmax(2) == reference.flatten(2).argmax(2)).double().mean())


class PoseAnswers(Answers[PoseTask, tuple[Keypoint, ...]]):
    """The keypoints of the one object of each image."""

    columns = {"keypoint": "text", "x": "number", "y": "number", "score": "percent"}

    def decode(self, output: Tensor) -> list[tuple[Keypoint, ...]]:
        """Keypoints in shares of the frame."""
        pairs = zip(*(one.tolist() for one in self.task.locate(output)), strict=True)
        return [self._name(places, scores) for places, scores in pairs]

    def _name(self, places: Sequence[Sequence[float]], scores: Sequence[float]) -> tuple[Keypoint, ...]:
        rows = zip(self.task.classes, places, scores, strict=True)
        return tuple(Keypoint(label, index, x, y, score) for index, (label, (x, y), score) in enumerate(rows))

    def predict(
        self,
        images: Sequence[Tensor],
        preprocessing: Preprocessing,
        top_k: int | None = None,
        *,
        boxes: Sequence[Sequence[float]] | None = None,
    ) -> list[tuple[Keypoint, ...]]:
        """Keypoints in pixels of each image.

        Args:
            images: each with one object.
            preprocessing: what the backbone expects.
            top_k: only so many keypoints, the surest first.
            boxes: where the objects are (left, top, right, bottom), e.g. from a detector; the whole images by default.
        """
        boxes = boxes or [(0, 0, image.shape[-1], image.shape[-2]) for image in images]
        how, frame, facts = preprocessing.to_dict(), preprocessing.image_size, self.task.decoding()
        seen = [view(image.permute(1, 2, 0).numpy(), box, how) for image, box in zip(images, boxes, strict=True)]
        maps = mean_maps(self.raw, np.concatenate([normalise(one, how) for one in seen]), facts)
        answers = []
        for box, places, scores in zip(boxes, *find_keypoints(maps, facts["sigma"]), strict=True):
            found = self._name(places_in_picture(places, box, frame), scores.tolist())
            answers.append(found if top_k is None else tuple(sorted(found, key=lambda one: -one.score)[:top_k]))
        return answers

    def predict_sample(
        self, image: Tensor, target: dict[str, Tensor], preprocessing: Preprocessing
    ) -> tuple[Keypoint, ...]:
        """The keypoints of the annotated object."""
        return self.predict([image], preprocessing, boxes=[target["box"].tolist()])[0]

    def rows(self, answer: tuple[Keypoint, ...]) -> list[tuple[Any, ...]]:
        """One a keypoint."""
        return [(one.label, one.x, one.y, one.score) for one in answer]

    def to_dict(self, answer: tuple[Keypoint, ...]) -> dict[str, Any]:
        """``keypoints``: label, index, x, y, score."""
        return {"keypoints": [asdict(one) for one in answer]}

    def truth(self, target: dict[str, Tensor]) -> tuple[Keypoint, ...]:
        """The labelled keypoints."""
        return self._name(target["keypoints"][:, :2].tolist(), target["keypoints"][:, 2].tolist())

    difference = "lines lead from each answer (dot) to the true place"

    def draw_difference(self, image: Tensor, answer: tuple[Keypoint, ...], target: Mapping[str, Tensor]) -> Tensor:
        """Dots, each with a line to where the keypoint is labelled."""
        truth = target["keypoints"].tolist()
        lines = [(one.index, (one.x, one.y), truth[one.index][:2]) for one in answer if truth[one.index][2]]
        return draw_offsets(image, lines, len(self.task.classes))

    def draw(self, image: Tensor, answer: tuple[Keypoint, ...]) -> Tensor:
        """Dots and lines; unsure keypoints are left out."""
        places = {one.index: (one.x, one.y) for one in answer if one.score >= self.task.options.threshold}
        return draw_skeleton(image, places, self.task.skeleton, len(self.task.classes))


def _enlarge(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


def _build(backbone: Backbone, spec: TaskSpec, options: PoseOptions) -> PoseTask:
    skeleton = [(int(a), int(b)) for a, b in spec.facts["skeleton"]]
    return PoseTask(backbone, spec.classes, options, skeleton=skeleton, mirror=spec.facts.get("mirror"))


POSE = TaskKind(
    task=PoseTask,
    build=_build,
    answers=PoseAnswers,
    load_data=load_keypoints,
    options=PoseOptions,
    notes={
        "skeleton": lambda data: [list(pair) for pair in data.train.skeleton],
        "mirror": lambda data: list(data.train.mirror) if data.train.mirrored_alike else [],
    },
    later_notes=frozenset({"mirror"}),
)
