"""COCO's average precision, fed with raw outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection.roi_heads import paste_masks_in_image

from vitrail.core.types import ImageSize

Decode = Callable[[Tensor], list[dict[str, Tensor]]]


class BoxMetric(MeanAveragePrecision):
    """``map``, ``map_50`` and ``ap_per_class`` (0 where a class does not occur) of a detector's raw outputs."""

    kinds: tuple[Literal["bbox", "segm"], ...] = ("bbox",)

    def __init__(self, decode: Decode, num_classes: int) -> None:
        super().__init__(box_format="xyxy", iou_type=self.kinds, class_metrics=True, backend="pycocotools")
        self.decode = decode
        self.num_classes = num_classes
        self.warn_on_many_detections = False

    def update(self, output: Tensor, targets: list[dict[str, Tensor]]) -> None:  # type: ignore[override]
        """(b, n, 4 + classes) and the targets of the batch."""
        wanted = [target | {"iscrowd": target["iscrowd"].to(torch.uint8)} for target in targets]
        super().update(self.decode(output), wanted)

    def compute(self) -> dict[str, Tensor]:
        """Scalars, and one value for each class."""
        return self._named(super().compute(), "")

    def _named(self, values: dict[str, Any], kind: str) -> dict[str, Tensor]:
        each = torch.zeros(self.num_classes)
        rows = zip(values["classes"].reshape(-1).tolist(), values[f"{kind}map_per_class"].reshape(-1), strict=True)
        for label, value in rows:
            each[int(label)] = value.clamp(min=0)
        return {
            "map": values[f"{kind}map"].clamp(min=0),
            "map_50": values[f"{kind}map_50"].clamp(min=0),
            "ap_per_class": each,
        }


class MaskMetric(BoxMetric):
    """The same of boxes (``map``) and of masks (``mask_map``, ``mask_map_50``, ``ap_per_class``)."""

    kinds = ("bbox", "segm")

    def __init__(self, decode: Decode, num_classes: int, size: ImageSize) -> None:
        super().__init__(lambda output: [_in_frame(found, size) for found in decode(output)], num_classes)

    def compute(self) -> dict[str, Tensor]:
        """Scalars, and one value for each class."""
        values = MeanAveragePrecision.compute(self)
        boxes, masks = self._named(values, "bbox_"), self._named(values, "segm_")
        return {
            "map": boxes["map"],
            "mask_map": masks["map"],
            "mask_map_50": masks["map_50"],
            "ap_per_class": masks["ap_per_class"],
        }


def _in_frame(found: dict[str, Tensor], size: ImageSize) -> dict[str, Tensor]:
    """Masks over boxes as masks (n, h, w) over the frame."""
    frame = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32, device=found["boxes"].device)
    pasted = paste_masks_in_image(found["masks"].unsqueeze(1), found["boxes"] * frame, size)
    return found | {"masks": pasted.squeeze(1) >= 0.5}
