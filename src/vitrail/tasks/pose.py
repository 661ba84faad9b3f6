"""Pose: the keypoints of one object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import View, load_keypoints, mirror_order
from vitrail.models import Backbone
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import Score, Task
from vitrail.tasks.drawing import draw_skeleton
from vitrail.tasks.heads.pyramid import choose_levels
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
        """Places (b, j, 2) as shares of the frame, and scores (b, j): the largest value, moved by DARK (Zhang et al.,
        CVPR 2020, arXiv:1910.06278) to the peak of the Gaussian that runs through its neighbours."""
        maps = output.detach().float().cpu()
        rows, columns = maps.shape[-2:]
        scores, place = maps.flatten(2).max(2)
        y, x = place // columns, place % columns
        offset = _peak_offset(_blur(maps, self.options.sigma), y, x)
        places = torch.stack([x, y], -1) + 0.5 + offset
        return places / torch.tensor([columns, rows]), scores.clamp(0, 1)

    def metrics(self) -> Metric:
        """``pck`` (labelled keypoints that are off by less than a tenth of the object's longer side), ``oks_ap``, and
        ``pck_per_class``."""
        from vitrail.tasks.metrics.keypoint_accuracy import PoseMetric

        return PoseMetric(self.locate, len(self.classes))

    def agreement(self, output: Tensor, reference: Tensor) -> float:
        """Share of keypoints whose largest value is at the same place of the heat map in both."""
        return float((output.flatten(2).argmax(2) == reference.flatten(2).argmax(2)).double().mean())


class PoseAnswers(Answers[PoseTask, tuple[Keypoint, ...]]):
    """The keypoints of the one object of each image."""

    columns = {"keypoint": "text", "x": "number", "y": "number", "score": "percent"}

    def decode(self, output: Tensor) -> list[tuple[Keypoint, ...]]:
        """Keypoints in shares of the frame."""
        return [self._name(one, score) for one, score in zip(*self.task.locate(output), strict=True)]

    def _name(self, places: Tensor, scores: Tensor) -> tuple[Keypoint, ...]:
        rows = zip(self.task.classes, places.tolist(), scores.tolist(), strict=True)
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
        views = [View.of(box, preprocessing.image_size) for box in boxes]
        seen = torch.stack([view.image(image, preprocessing) for view, image in zip(views, images, strict=True)])
        normal = preprocessing.normalize(seen.to(self.device))
        with torch.inference_mode():
            maps = self.task(normal)
            if self.task.options.flip_test and self.task.mirror:
                mirrored = self.task(normal.flip(-1)).flip(-1)
                maps = (maps + mirrored[:, list(self.task.mirror)]) / 2
        frame = torch.tensor([preprocessing.image_size[1], preprocessing.image_size[0]])
        answers = []
        for view, places, scores in zip(views, *self.task.locate(maps), strict=True):
            found = self._name(view.to_image(places * frame), scores)
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
        return self._name(target["keypoints"][:, :2], target["keypoints"][:, 2])

    def draw(self, image: Tensor, answer: tuple[Keypoint, ...]) -> Tensor:
        """Dots and lines; unsure keypoints are left out."""
        places = {one.index: (one.x, one.y) for one in answer if one.score >= self.task.options.threshold}
        return draw_skeleton(image, places, self.task.skeleton, len(self.task.classes))


def _enlarge(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


def _blur(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian of the spread that peaks were trained with, at unchanged maxima, so that a ragged map has one slope."""
    radius = max(round(2 * sigma), 1)
    line = torch.exp(-torch.arange(-radius, radius + 1).square() / (2 * sigma**2))
    line = line / line.sum()
    count = maps.shape[1]
    column, row = line.view(1, 1, -1, 1).repeat(count, 1, 1, 1), line.view(1, 1, 1, -1).repeat(count, 1, 1, 1)
    blurred = F.conv2d(
        F.conv2d(maps, column, padding=(radius, 0), groups=count), row, padding=(0, radius), groups=count
    )
    return blurred.clamp(min=1e-10)


def _peak_offset(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """One Newton step on the logarithm (b, j, 2: x, y), at most one pixel; 0 at the border and where nothing curves."""
    rows, columns = maps.shape[-2:]
    logs = F.pad(maps.log(), (1, 1, 1, 1), mode="replicate").flatten(2)

    def at(down: int, right: int) -> Tensor:
        return logs.gather(2, ((y + 1 + down) * (columns + 2) + x + 1 + right).unsqueeze(2)).squeeze(2)

    slope = torch.stack([at(0, 1) - at(0, -1), at(1, 0) - at(-1, 0)], -1) / 2
    xx, yy = at(0, 1) - 2 * at(0, 0) + at(0, -1), at(1, 0) - 2 * at(0, 0) + at(-1, 0)
    xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    determinant = xx * yy - xy * xy
    step = -torch.stack([yy * slope[..., 0] - xy * slope[..., 1], xx * slope[..., 1] - xy * slope[..., 0]], -1)
    inside = (x > 0) & (x < columns - 1) & (y > 0) & (y < rows - 1) & (determinant > 1e-6) & (xx < 0)
    return torch.where(inside.unsqueeze(-1), (step / determinant.clamp(min=1e-6).unsqueeze(-1)).clamp(-1, 1), 0.0)


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
