"""Images with boxes: COCO's JSON, or YOLO's text files.

YOLO: ``images/train/a.jpg`` with ``labels/train/a.txt`` (or ``train/images``, ``train/labels``), a line an object:
``CLASS X Y WIDTH HEIGHT``, centres and sizes as shares of the image. ``data.yaml`` (``names``) or ``classes.txt`` names
the classes. An image without objects has an empty file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
import yaml
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vitrail.core.errors import DataError
from vitrail.core.types import Preprocessing
from vitrail.data.annotations import Problems, as_splits, image_size_of
from vitrail.data.check import check_files
from vitrail.data.coco import checked_box, has_coco, read_coco
from vitrail.data.letterbox import Letterbox
from vitrail.data.listing import PART_NAMES, image_files
from vitrail.data.load import DataConfig
from vitrail.data.mask_shapes import problem_of_mask
from vitrail.data.samples import Samples, Transform
from vitrail.data.splits import DataSplits
from vitrail.data.transforms import AugmentConfig, colour_jitter, interpolation_mode

REMEDY = "give COCO JSON (annotations/train.json beside train/) or YOLO text (images/train, labels/train, data.yaml)"
LEAST_SHARE = 0.25
"""Objects of which a random crop leaves less are not learnt: what is left may look like anything."""

Target = dict[str, Tensor]
AnyBoxes = TypeVar("AnyBoxes", bound="BoxSet")


@dataclass(frozen=True)
class Objects:
    """The objects of one image: boxes (n, 4), left, top, right, bottom in pixels; class indices; whether one box stands
    for a crowd, which is neither learnt nor counted; the ``segmentation`` of each where masks are wanted."""

    boxes: tuple[tuple[float, ...], ...]
    labels: tuple[int, ...]
    crowd: tuple[bool, ...]
    shapes: tuple[Any, ...] = field(default=(), repr=False)


class BoxSet(Samples):
    """Images with boxes. Targets have ``boxes`` (n, 4), ``labels`` (n,) and ``iscrowd`` (n,).

    :meth:`target` gives pixels of the image; fitted and augmented targets are shares of the frame, from 0 to 1.

    Attributes:
        with_masks: targets have a mask for every object too.
    """

    with_masks: ClassVar[bool] = False

    def __init__(self, names: Sequence[str], sources: Sequence[Path], objects: Sequence[Objects], **settings: Any):
        super().__init__(names, sources, **settings)
        self.objects = list(objects)

    def target(self, index: int) -> Target:
        """Boxes in pixels of the image."""
        found = self.objects[index]
        return {
            "boxes": torch.tensor(found.boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(found.labels, dtype=torch.int64),
            "iscrowd": torch.tensor(found.crowd, dtype=torch.bool),
        }

    def fit(self, image: Tensor, target: Target, preprocessing: Preprocessing) -> tuple[Tensor, Target]:
        """The whole picture in a frame."""
        box = Letterbox.of((image.shape[-2], image.shape[-1]), preprocessing.image_size)
        scale = torch.tensor(box.scale * 2)
        return box.image(image, preprocessing), target | {
            "boxes": _shares(target["boxes"] * scale, preprocessing.image_size)
        }

    def train_transform(self, preprocessing: Preprocessing, augment: AugmentConfig) -> Transform:
        """Random crops that keep the proportions of objects, mirror images, other colours."""
        return _Together(preprocessing, augment, self.mirrored_alike)

    def collate(self, targets: list[Target]) -> list[Target]:
        """As many objects as there are."""
        return targets

    def subset(self, indices: Sequence[int]) -> Self:
        """The samples at ``indices``, in that order."""
        chosen = super().subset(indices)
        chosen.objects = [self.objects[i] for i in indices]
        return chosen

    def renumber(self, table: Tensor) -> Self:
        """The same boxes; class i becomes ``table[i]``."""
        chosen = self.subset(range(len(self)))
        chosen.objects = [replace(one, labels=tuple(int(table[label]) for label in one.labels)) for one in self.objects]
        return chosen


class _Together:
    def __init__(self, preprocessing: Preprocessing, augment: AugmentConfig, mirrored_alike: bool) -> None:
        hflip = augment.hflip if augment.hflip is not None else 0.5
        self.size = preprocessing.image_size
        self.change = v2.Compose(
            [
                v2.RandomResizedCrop(
                    list(preprocessing.image_size),
                    scale=augment.random_resized_crop_scale,
                    ratio=augment.random_resized_crop_ratio,
                    interpolation=interpolation_mode(preprocessing),
                    antialias=True,
                ),
                v2.RandomHorizontalFlip(hflip if mirrored_alike else 0.0),
                *colour_jitter(augment),
            ]
        )

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        size = (image.shape[-2], image.shape[-1])
        boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size, clamping_mode=None)
        masks = [tv_tensors.Mask(target["masks"])] if "masks" in target else []
        image, boxes, *masks = self.change(tv_tensors.Image(image), boxes, *masks)
        whole = boxes.as_subclass(Tensor)
        limit = torch.tensor([self.size[1], self.size[0]] * 2)
        inside = torch.minimum(whole.clamp(min=0), limit)
        kept = _area(inside) > LEAST_SHARE * _area(whole).clamp(min=1e-6)
        if masks:
            target = target | {"masks": masks[0].as_subclass(Tensor)}
        changed = {name: value[kept] for name, value in target.items()}
        return image.as_subclass(Tensor), changed | {"boxes": _shares(inside[kept], self.size)}


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)


def _shares(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    return boxes / torch.tensor([size[1], size[0]] * 2)


@dataclass(frozen=True)
class _Row:
    name: str
    path: Path
    part: str
    objects: Objects


def load_boxes(config: DataConfig, *, progress: bool = False) -> DataSplits[BoxSet]:
    """Find, check and split images and boxes.

    Raises:
        DataError: no images, no classes, or annotations that are wrong (unless ``config.bad_annotations`` is "skip":
            then they are left out, and listed in ``skipped``).
    """
    return load_as(BoxSet, config, progress=progress)


def load_as(kind: type[AnyBoxes], config: DataConfig, *, progress: bool = False) -> DataSplits[AnyBoxes]:
    """What :func:`load_boxes` does, for a subclass of :class:`BoxSet`."""
    root = Path(config.path).expanduser()
    if not root.is_dir():
        raise DataError(f"data folder {config.path} does not exist; {REMEDY}")
    root = root.resolve()
    problems = Problems(config)
    if has_coco(root, "instances"):
        classes, rows = _from_coco(root, problems, masks=kind.with_masks)
    elif kind.with_masks:
        raise DataError(f"{root} has no masks of objects; give COCO JSON (annotations/train.json beside train/)")
    else:
        classes, rows = _from_yolo(root, problems)
    if not rows or not classes:
        raise DataError(f"{root} has {len(rows)} usable images and {len(classes)} classes; {REMEDY}")
    checks = check_files(root, [row.name for row in rows], max_pixels=config.max_pixels, progress=progress)
    problems.check_images([row.name for row in rows], checks)
    problems.settle(len(rows))
    good = [(row, check) for row, check in zip(rows, checks, strict=True) if row.name not in problems.names]
    everything = kind(
        [row.name for row, _ in good],
        [row.path for row, _ in good],
        [row.objects for row, _ in good],
        max_pixels=config.max_pixels,
    )
    total = hashlib.sha256(repr(classes).encode())
    for row, check in sorted(good, key=lambda one: one[0].name):
        total.update(f"{row.name}\0{check.digest}\0{row.objects}\n".encode())
        if kind.with_masks:
            total.update(repr(row.objects.shapes).encode())
    return as_splits(
        everything,
        [row.part for row, _ in good],
        config,
        classes=classes,
        fingerprint=total.hexdigest(),
        skipped=problems.listed(),
    )


def _from_coco(root: Path, problems: Problems, *, masks: bool) -> tuple[tuple[str, ...], list[_Row]]:
    files = read_coco(root, "instances", problems)
    index = {identifier: number for number, identifier in enumerate(files.categories)}
    rows = []
    for image in files.images:
        kept = [
            (box, index[one["category_id"]], bool(one.get("iscrowd", 0)), one.get("segmentation"))
            for box, one, where in zip(image.boxes, image.objects, image.where, strict=True)
            if not masks or _has_mask(one, image.size, where, problems)
        ]
        boxes, labels, crowd, shapes = zip(*kept, strict=True) if kept else ((), (), (), ())
        shapes = tuple(None if many else shape for shape, many in zip(shapes, crowd, strict=True)) if masks else ()
        rows.append(_Row(image.name, image.path, image.part, Objects(boxes, labels, crowd, shapes)))
    return tuple(str(entry["name"]) for entry in files.categories.values()), rows


def _has_mask(annotation: dict[str, Any], size: tuple[int, int], where: str, problems: Problems) -> bool:
    reason = None if annotation.get("iscrowd") else problem_of_mask(annotation.get("segmentation"), size)
    if reason is not None:
        problems.add(where, reason)
    return reason is None


def _from_yolo(root: Path, problems: Problems) -> tuple[tuple[str, ...], list[_Row]]:
    names = _yolo_names(root)
    rows = []
    for images, labels, part in _yolo_folders(root):
        for path in image_files(images, root):
            name = path.relative_to(root).as_posix()
            file = labels / path.relative_to(images).with_suffix(".txt")
            size = image_size_of(path)
            if not file.is_file():
                problems.add(name, f"there is no {file.relative_to(root).as_posix()} (an empty one says: no objects)")
            elif size is not None:
                rows.append(_Row(name, path, part, _yolo_objects(root, file, size, len(names), problems)))
    return names, rows


def _yolo_folders(root: Path) -> list[tuple[Path, Path, str]]:
    found = []
    for part in sorted(PART_NAMES):
        for images, labels in (
            (root / "images" / part, root / "labels" / part),
            (root / part / "images", root / part / "labels"),
        ):
            if images.is_dir():
                found.append((images, labels, PART_NAMES[part]))
    if not found and (root / "images").is_dir():
        found = [(root / "images", root / "labels", "")]
    return found


def _yolo_names(root: Path) -> tuple[str, ...]:
    for file in (root / "data.yaml", root / "dataset.yaml", root / "classes.txt"):
        if not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8-sig")
            if file.suffix == ".txt":
                return tuple(line.strip() for line in text.splitlines() if line.strip())
            names = (yaml.safe_load(text) or {}).get("names")
        except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
            raise DataError(f"{file} cannot be read ({str(error).splitlines()[0]}); it needs 'names'") from error
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names)]
        if isinstance(names, list) and names:
            return tuple(map(str, names))
    raise DataError(f"{root} has no class names (data.yaml with 'names', or classes.txt); {REMEDY}")


def _yolo_objects(root: Path, file: Path, size: tuple[int, int], count: int, problems: Problems) -> Objects:
    boxes, labels = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file.relative_to(root).as_posix()} line {number}"
        try:
            label, *values = (float(word) for word in line.split())
        except ValueError:
            label, values = math.nan, []
        if len(values) != 4 or not all(map(math.isfinite, values)):
            problems.add(where, f"{line.strip()!r} is not 'CLASS X Y WIDTH HEIGHT'")
        elif not (label.is_integer() and 0 <= label < count):
            problems.add(where, f"class {label:g} does not exist; there are {count}")
        else:
            x, y, width, height = (v * side for v, side in zip(values, (size[1], size[0]) * 2, strict=True))
            box = checked_box([x - width / 2, y - height / 2, width, height], size, where, problems)
            if box is not None:
                boxes.append(box)
                labels.append(int(label))
    return Objects(tuple(boxes), tuple(labels), (False,) * len(boxes))
