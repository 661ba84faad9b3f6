"""Images with objects and the mask of each, from COCO's JSON."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vitrail.core.types import Preprocessing
from vitrail.data.annotations import image_size_of
from vitrail.data.boxes import BoxSet, Target, load_as
from vitrail.data.letterbox import Letterbox
from vitrail.data.load import DataConfig
from vitrail.data.mask_shapes import decode_mask, require_pycocotools
from vitrail.data.splits import DataSplits


class InstanceSet(BoxSet):
    """Images with boxes and masks: targets have ``masks`` (n, h, w), uint8, 1 where the object is, besides those of
    :class:`BoxSet`. Crowds have empty masks."""

    with_masks: ClassVar[bool] = True

    def target(self, index: int) -> Target:
        """Boxes and masks in pixels of the image."""
        source, found = self.sources[index], self.objects[index]
        size = (None if isinstance(source, bytes) else image_size_of(source)) or (1, 1)
        masks = [decode_mask(shape, size) for shape in found.shapes]
        return super().target(index) | {"masks": torch.stack(masks) if masks else torch.zeros(0, *size).byte()}

    def fit(self, image: Tensor, target: Target, preprocessing: Preprocessing) -> tuple[Tensor, Target]:
        """The whole picture in a frame."""
        box = Letterbox.of((image.shape[-2], image.shape[-1]), preprocessing.image_size)
        masks = torch.zeros(len(target["masks"]), *preprocessing.image_size, dtype=torch.uint8)
        for index, mask in enumerate(target["masks"]):
            masks[index] = box.mask(mask, 0)
        image, target = super().fit(image, target, preprocessing)
        return image, target | {"masks": masks}


def load_instances(config: DataConfig, *, progress: bool = False) -> DataSplits[InstanceSet]:
    """As :func:`vitrail.data.load_boxes`, from COCO JSON alone; objects without a usable mask are wrong.

    Raises:
        DataError: as there.
        MissingDependencyError: pycocotools is not installed.
    """
    require_pycocotools()
    return load_as(InstanceSet, config, progress=progress)
