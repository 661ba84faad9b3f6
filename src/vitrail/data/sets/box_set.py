"""Images with boxes, and with the masks of their objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vitrail.core.types import ImageSize, Preprocessing
from vitrail.data.formats.coco_shapes import decode_mask
from vitrail.data.pixels.augment import ResolvedAugment, change_together, placed_transform
from vitrail.data.pixels.decode import image_size_of
from vitrail.data.pixels.letterbox import Letterbox
from vitrail.data.records import BoxedImage
from vitrail.data.sets.samples import Samples, Transform

MIN_SHARE = 0.25
"""Objects of which a random crop leaves less are not learnt: what is left may look like anything."""

Target = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BoxSet(Samples):
    """Images with boxes. Targets have ``boxes`` (n, 4), ``labels`` (n,) and ``iscrowd`` (n,).

    :meth:`target` gives pixels of the image; fitted and augmented targets are shares of the frame, from 0 to 1.
    """

    records: Sequence[BoxedImage]

    def target(self, index: int) -> Target:
        """Boxes in pixels of the image."""
        record = self.records[index]
        return {
            "boxes": torch.tensor(record.boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(record.labels, dtype=torch.int64),
            "iscrowd": torch.tensor(record.crowd, dtype=torch.bool),
        }

    def fit(self, image: Tensor, target: Target, preprocessing: Preprocessing) -> tuple[Tensor, Target]:
        """The whole picture in a frame."""
        box = Letterbox.of((image.shape[-2], image.shape[-1]), preprocessing.image_size)
        scale = torch.tensor(box.scale * 2)
        return box.image(image, preprocessing), target | {
            "boxes": _shares(target["boxes"] * scale, preprocessing.image_size)
        }

    def train_transform(self, preprocessing: Preprocessing, augment: ResolvedAugment) -> Transform:
        """Random crops, mirror images, other colours; see :data:`MIN_SHARE`."""
        change = placed_transform(preprocessing, augment, mirrored_alike=self.mirrored_alike)
        return partial(_change, change, preprocessing.image_size)

    def collate(self, targets: list[Target]) -> list[Target]:
        """As many objects as there are."""
        return targets

    def occurs(self, label: int) -> bool:
        """Whether an object has class ``label``."""
        return any(label in record.labels for record in self.records)

    def renumber(self, table: Tensor) -> Self:
        """The same boxes; class i becomes ``table[i]``."""
        new: list[int] = table.tolist()
        return replace(
            self,
            records=[replace(one, labels=tuple(new[label] for label in one.labels)) for one in self.records],
        )


class InstanceSet(BoxSet):
    """Images with boxes and masks: targets have ``masks`` (n, h, w), uint8, 1 where the object is, besides those of
    :class:`BoxSet`. Crowds have empty masks."""

    def target(self, index: int) -> Target:
        """Boxes and masks in pixels of the image."""
        record = self.records[index]
        size = (None if isinstance(record.source, bytes) else image_size_of(record.source)) or (1, 1)
        masks = [decode_mask(shape, size) for shape in record.shapes or ()]
        return super().target(index) | {"masks": torch.stack(masks) if masks else torch.zeros(0, *size).byte()}

    def fit(self, image: Tensor, target: Target, preprocessing: Preprocessing) -> tuple[Tensor, Target]:
        """The whole picture in a frame."""
        box = Letterbox.of((image.shape[-2], image.shape[-1]), preprocessing.image_size)
        masks = torch.zeros(len(target["masks"]), *preprocessing.image_size, dtype=torch.uint8)
        for index, mask in enumerate(target["masks"]):
            masks[index] = box.mask(mask, 0)
        image, target = super().fit(image, target, preprocessing)
        return image, target | {"masks": masks}


def _change(change: v2.Transform, size: ImageSize, image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """The random change, after which objects that are mostly cut off are left out."""
    canvas = (image.shape[-2], image.shape[-1])
    boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=canvas, clamping_mode=None)
    masks = [tv_tensors.Mask(target["masks"])] if "masks" in target else []
    image, whole, *masks = change_together(change, image, boxes, *masks)
    if masks:
        target = target | {"masks": masks[0]}
    inside = torch.minimum(whole.clamp(min=0), torch.tensor([size[1], size[0]] * 2))
    kept = _area(inside) > MIN_SHARE * _area(whole).clamp(min=1e-6)
    changed = {name: value[kept] for name, value in target.items()}
    return image, changed | {"boxes": _shares(inside[kept], size)}


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)


def _shares(boxes: Tensor, size: ImageSize) -> Tensor:
    return boxes / torch.tensor([size[1], size[0]] * 2)
