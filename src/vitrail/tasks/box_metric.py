"""COCO's average precision, fed with raw outputs; apart because torchmetrics takes seconds to import."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from vitrail.core.errors import MissingDependencyError

Decode = Callable[[Tensor], list[dict[str, Tensor]]]


def require_pycocotools() -> None:
    """
    Raises:
        MissingDependencyError: it is not installed.
    """
    if importlib.util.find_spec("pycocotools") is None:
        raise MissingDependencyError("pycocotools", "detection")


class BoxMetric(MeanAveragePrecision):
    """``map``, ``map_50`` and ``ap_per_class`` (0 where a class does not occur) of a detector's raw outputs."""

    def __init__(self, decode: Decode, num_classes: int) -> None:
        super().__init__(box_format="xyxy", iou_type="bbox", class_metrics=True, backend="pycocotools")
        self.decode = decode
        self.num_classes = num_classes
        self.warn_on_many_detections = False

    def update(self, output: Tensor, targets: list[dict[str, Tensor]]) -> None:  # type: ignore[override]
        """(b, anchors, 4 + classes) and the targets of the batch."""
        wanted = [target | {"iscrowd": target["iscrowd"].to(torch.uint8)} for target in targets]
        super().update(self.decode(output), wanted)

    def compute(self) -> dict[str, Tensor]:
        """Scalars, and one value for each class."""
        values: dict[str, Any] = super().compute()
        each = torch.zeros(self.num_classes)
        for label, value in zip(
            values["classes"].reshape(-1).tolist(), values["map_per_class"].reshape(-1), strict=True
        ):
            each[int(label)] = value.clamp(min=0)
        return {
            "map": values["map"].clamp(min=0),
            "map_50": values["map_50"].clamp(min=0),
            "ap_per_class": each,
        }
