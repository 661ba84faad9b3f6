"""Objects with keypoints, one sample an object: COCO's keypoints JSON, any skeleton."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V

from vitrail.core.errors import DataError
from vitrail.core.types import ImageSize, Preprocessing
from vitrail.data.annotations import Problems, as_splits
from vitrail.data.check import check_files
from vitrail.data.coco import SLACK, CocoImage, is_numbers, read_coco
from vitrail.data.load import DataConfig
from vitrail.data.samples import Samples, Transform
from vitrail.data.splits import DataSplits
from vitrail.data.transforms import AugmentConfig, colour_jitter

MARGIN = 1.25
"""What is seen around an object, as in Simple Baselines (Xiao et al., ECCV 2018)."""
MOST_TURN = 30.0
"""Degrees by which training objects are turned, either way."""

Target = dict[str, Tensor]


@dataclass(frozen=True)
class Instance:
    """One object: its box (left, top, right, bottom), keypoints (x, y, 1 where labelled), and area, in pixels."""

    box: tuple[float, float, float, float]
    keypoints: tuple[tuple[float, float, float], ...]
    area: float


@dataclass(frozen=True, kw_only=True)
class View:
    """A turned rectangle of an image, as it fills a frame.

    Attributes:
        centre: (x, y) in pixels of the image.
        scale: pixels of the frame for one of the image.
        turn: degrees.
        frame: (height, width).
    """

    centre: tuple[float, float]
    scale: float
    turn: float
    frame: ImageSize

    @classmethod
    def of(cls, box: Sequence[float], frame: ImageSize, *, zoom: float = 1.0, turn: float = 0.0) -> View:
        """A box with a margin, in the middle of the frame."""
        width, height = max(box[2] - box[0], 1e-3), max(box[3] - box[1], 1e-3)
        scale = zoom * min(frame[1] / (width * MARGIN), frame[0] / (height * MARGIN))
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        return cls(centre=centre, scale=scale, turn=turn, frame=frame)

    def _rotation(self) -> Tensor:
        angle = math.radians(self.turn)
        return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def to_frame(self, points: Tensor) -> Tensor:
        """Points (..., 2) of the image in pixels of the frame."""
        middle = torch.tensor([self.frame[1] / 2, self.frame[0] / 2])
        return (points - torch.tensor(self.centre)) @ self._rotation() * self.scale + middle

    def to_image(self, points: Tensor) -> Tensor:
        """The inverse of :meth:`to_frame`."""
        middle = torch.tensor([self.frame[1] / 2, self.frame[0] / 2])
        return (points - middle) / self.scale @ self._rotation().T + torch.tensor(self.centre)

    def image(self, image: Tensor, preprocessing: Preprocessing) -> Tensor:
        """A uint8 image (3, h, w) as the frame shows it; outside of the image there is the mean colour."""
        height, width = image.shape[-2:]
        if self.scale < 1:  # a grid of points alone would skip pixels
            size = [max(round(height * self.scale), 1), max(round(width * self.scale), 1)]
            image = V.resize(image, size, antialias=True)
        rows, columns = ((torch.arange(n) + 0.5) for n in self.frame)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        places = self.to_image(torch.stack([x, y], -1)) / torch.tensor([width, height]) * 2 - 1
        mean = 255 * torch.tensor(preprocessing.mean, dtype=torch.float32).view(-1, 1, 1)
        seen = F.grid_sample((image - mean).unsqueeze(0), places.unsqueeze(0), align_corners=False).squeeze(0) + mean
        return seen.round().clamp(0, 255).to(torch.uint8)


class KeypointSet(Samples):
    """One object a sample; several may share an image.

    Targets have ``keypoints`` (j, 3): x, y, 1 where labelled; ``area``; ``box``, all in pixels of the image. Fitted and
    augmented ones are in shares of the frame (``area`` of its area), and have no ``box`` but its longer ``side``.
    """

    def __init__(
        self,
        names: Sequence[str],
        sources: Sequence[Path],
        instances: Sequence[Instance],
        keypoints: Sequence[str],
        skeleton: Sequence[tuple[int, int]] = (),
        **settings: Any,
    ) -> None:
        super().__init__(names, sources, **settings)
        self.instances = list(instances)
        self.keypoints = tuple(keypoints)
        self.skeleton = tuple(skeleton)
        self.order = torch.arange(len(self.keypoints))
        self.mirrored = mirror_order(self.keypoints)

    def target(self, index: int) -> Target:
        """In pixels of the image."""
        found = self.instances[index]
        keypoints = torch.zeros(len(self.mirrored), 3)
        keypoints[self.order] = torch.tensor(found.keypoints)
        return {
            "keypoints": keypoints,
            "area": torch.tensor(found.area),
            "box": torch.tensor(found.box),
        }

    def fit(self, image: Tensor, target: Target, preprocessing: Preprocessing) -> tuple[Tensor, Target]:
        """The object with some margin, upright."""
        return self._seen(image, target, View.of(target["box"].tolist(), preprocessing.image_size), preprocessing)

    def _seen(self, image: Tensor, target: Target, view: View, how: Preprocessing) -> tuple[Tensor, Target]:
        height, width = view.frame
        places = view.to_frame(target["keypoints"][:, :2]) / torch.tensor([width, height])
        labelled = target["keypoints"][:, 2] * ((places > 0) & (places < 1)).all(1)
        box = target["box"]
        side = (box[2:] - box[:2]).max() * view.scale / max(height, width)
        area = target["area"] * view.scale**2 / (height * width)
        keypoints = torch.cat([places, labelled.unsqueeze(1)], 1)
        return view.image(image, how), {"keypoints": keypoints, "area": area, "side": side}

    def train_transform(self, preprocessing: Preprocessing, augment: AugmentConfig) -> Transform:
        """Turned, nearer and farther, mirrored where keypoints have left and right counterparts, other colours."""
        return partial(self._augmented, preprocessing, augment, colour_jitter(augment))

    def _augmented(
        self, how: Preprocessing, augment: AugmentConfig, colours: Sequence[Any], image: Tensor, target: Target
    ) -> tuple[Tensor, Target]:
        turn, zoom, flip = torch.rand(3).tolist()
        low = augment.random_resized_crop_scale[0] ** 0.5
        nearness = low + zoom * (1 / low - low)
        view = View.of(target["box"].tolist(), how.image_size, zoom=nearness, turn=MOST_TURN * (2 * turn - 1))
        image, target = self._seen(image, target, view, how)
        hflip = augment.hflip if augment.hflip is not None else 0.5
        if flip < hflip and self.mirrored_alike:
            image, target = self._flip(image, target)
        for step in colours:
            image = step(image)
        return image, target

    def _flip(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        keypoints = target["keypoints"].clone()
        keypoints[:, 0] = 1 - keypoints[:, 0]
        return image.flip(-1), target | {"keypoints": keypoints[torch.tensor(self.mirrored)]}

    def collate(self, targets: list[Target]) -> Target:
        """``keypoints`` (b, j, 3), ``area`` (b,), ``side`` (b,)."""
        return {name: torch.stack([target[name] for target in targets]) for name in targets[0]}

    def subset(self, indices: Sequence[int]) -> Self:
        """The samples at ``indices``, in that order."""
        chosen = super().subset(indices)
        chosen.instances = [self.instances[i] for i in indices]
        return chosen

    def renumber(self, table: Tensor) -> Self:
        """Keypoint i becomes ``table[i]``; those that the model knows besides stay unlabelled."""
        chosen = self.subset(range(len(self)))
        chosen.order = table[self.order]
        chosen.mirrored = tuple(range(max(int(table.max()) + 1, len(self.mirrored))))
        chosen.mirrored_alike = False  # pairs would have to be found among the model's names
        return chosen


def mirror_order(names: Sequence[str]) -> tuple[int, ...]:
    """For each keypoint, the one that takes its place in a mirror: left and right change, others stay."""
    index = {name: number for number, name in enumerate(names)}

    def other(name: str) -> str:
        return name.replace("left", "\0").replace("right", "left").replace("\0", "right")

    return tuple(index.get(other(name), number) for number, name in enumerate(names))


def has_mirror(names: Sequence[str]) -> bool:
    """Every left keypoint has a right one, so that a mirrored object is one of the same kind."""
    order = mirror_order(names)
    return all(order[i] != i for i, name in enumerate(names) if "left" in name or "right" in name)


def load_keypoints(config: DataConfig, *, progress: bool = False) -> DataSplits[KeypointSet]:
    """Find, check and split objects with keypoints; ``classes`` are the names of the keypoints.

    Raises:
        DataError: no such annotations, or wrong ones (unless ``config.bad_annotations`` is "skip").
    """
    root = Path(config.path).expanduser()
    if not root.is_dir():
        raise DataError(
            f"data folder {config.path} does not exist; give COCO JSON with keypoints beside train/ and val/"
        )
    root = root.resolve()
    problems = Problems(config)
    files = read_coco(root, "keypoints", problems)
    names, skeleton = _skeleton(root, list(files.categories.values()))
    checks = check_files(root, [one.name for one in files.images], max_pixels=config.max_pixels, progress=progress)
    problems.check_images([one.name for one in files.images], checks)
    rows, unlabelled = _rows(files.images, [check.digest for check in checks], len(names), problems)
    problems.settle(len(files.images))
    if not rows:
        raise DataError(f"{root} has no objects with labelled keypoints")
    everything = KeypointSet(
        [name for name, *_ in rows],
        [image.path for _, image, *_ in rows],
        [instance for _, _, instance, _ in rows],
        names,
        skeleton,
        max_pixels=config.max_pixels,
        mirrored_alike=has_mirror(names),
    )
    total = hashlib.sha256(repr(names).encode())
    for name, _, instance, digest in sorted(rows, key=lambda row: row[0]):
        total.update(f"{name}\0{digest}\0{instance}\n".encode())
    note = (f"{unlabelled} objects without labelled keypoints",) if unlabelled else ()
    return as_splits(
        everything,
        [image.part for _, image, *_ in rows],
        config,
        classes=names,
        fingerprint=total.hexdigest(),
        skipped=problems.listed() + note,
    )


def _rows(
    images: Sequence[CocoImage], digests: Sequence[str], count: int, problems: Problems
) -> tuple[list[tuple[str, CocoImage, Instance, str]], int]:
    """(name, image, object, digest of the file) of every object with a labelled keypoint, and how many have none."""
    rows, unlabelled = [], 0
    for image, digest in zip(images, digests, strict=True):
        if image.name in problems.names:
            continue
        for number, annotation in enumerate(image.objects):
            instance = _instance(image, number, annotation, count, problems)
            if instance is None or not any(point[2] for point in instance.keypoints):
                unlabelled += instance is not None
            else:
                rows.append((f"{image.name}#{annotation.get('id')}", image, instance, digest))
    return rows, unlabelled


def _skeleton(root: Path, categories: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Names of the keypoints, and pairs of indices that are joined by a line (1-based in the JSON)."""
    every = {tuple(map(str, category.get("keypoints") or ())) for category in categories} - {()}
    if len(every) != 1:
        raise DataError(
            f"{root} has {len(every)} skeletons among its categories; one is needed ('keypoints' in the JSON)"
        )
    (names,) = every
    if len(set(names)) < len(names):
        raise DataError(f"{root} names a keypoint twice; give each its own name")
    edges = next((category.get("skeleton") or () for category in categories if category.get("keypoints")), ())
    pairs = [(edge[0] - 1, edge[1] - 1) for edge in edges if is_numbers(edge, 2)]
    return names, tuple((int(a), int(b)) for a, b in pairs if 0 <= a < len(names) and 0 <= b < len(names))


def _instance(
    image: CocoImage, number: int, annotation: dict[str, Any], count: int, problems: Problems
) -> Instance | None:
    where, values, box = image.where[number], annotation.get("keypoints"), image.boxes[number]
    if annotation.get("iscrowd") and not values:
        return Instance(box, ((0.0, 0.0, 0.0),) * count, 0.0)
    if not is_numbers(values, 3 * count):
        problems.add(where, f"its keypoints are not {count} triples of numbers x, y, visibility")
        return None
    assert values is not None
    points = tuple((float(x), float(y), float(v > 0)) for x, y, v in zip(*[iter(values)] * 3, strict=True))
    rows, columns = image.size
    for index, (x, y, labelled) in enumerate(points):
        if labelled and not (-SLACK <= x <= columns + SLACK and -SLACK <= y <= rows + SLACK):
            problems.add(
                where, f"keypoint {index + 1} at {x:g}, {y:g} lies outside of the image of {columns}x{rows} pixels"
            )
            return None
    area = annotation.get("area")
    sides = (box[2] - box[0]) * (box[3] - box[1])
    return Instance(box, points, float(area) if isinstance(area, int | float) and area > 0 else sides)
