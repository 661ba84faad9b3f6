"""Instance segmentation: boxes, classes and masks of objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.types import ImageSize
from vitrail.data import load_instances
from vitrail.device.outputs import paste_mask, run_lengths
from vitrail.tasks.base import Score
from vitrail.tasks.detection import DetectedObject, DetectionAnswers, DetectionOptions, DetectionTask
from vitrail.tasks.drawing import draw_masks
from vitrail.tasks.kind import TaskKind

if TYPE_CHECKING:
    from torchmetrics import Metric


@dataclass(frozen=True, kw_only=True)
class InstanceOptions(DetectionOptions):
    """As :class:`~vitrail.tasks.detection.DetectionOptions`, with masks.

    Attributes:
        head: detector with masks: "maskrcnn" (two stages), or "cascade" (two, refined three times).
    """

    head: Literal["maskrcnn", "cascade"] = "maskrcnn"  # type: ignore[assignment]  # other heads than detection's


@dataclass(frozen=True)
class SegmentedObject(DetectedObject):
    """One object and its mask.

    Attributes:
        grid: (m, m) probabilities over the box, or (h, w) over the image where the mask is annotated.
        size: (height, width) of the image.
    """

    grid: Tensor
    size: ImageSize

    def mask(self) -> Tensor:
        """(h, w) bool: the object's pixels in the image."""
        if tuple(self.grid.shape) == tuple(self.size):
            return self.grid >= 0.5
        return torch.from_numpy(paste_mask(self.grid.numpy(), self.box, self.size))


class InstanceTask(DetectionTask):
    """Mask R-CNN or Cascade Mask R-CNN: :class:`~vitrail.tasks.heads.two_stage.RegionDetector`.

    ``forward`` gives (b, proposals, 4 + classes + 28 * 28): boxes and logits as detection has them, and the logits of a
    mask over each box.
    """

    name = "instances"
    scores = (
        Score(name="mask_map", title="mask mAP"),
        Score(name="map", title="box mAP"),
        Score(name="mask_map_50", title="mask mAP at IoU 0.5"),
    )
    output_name = "boxes_logits_and_masks"
    masks = True

    def metrics(self) -> Metric:
        """COCO's ``map`` of boxes, ``mask_map`` and ``mask_map_50``, and ``ap_per_class`` of masks."""
        from vitrail.data import require_pycocotools
        from vitrail.tasks.metrics.average_precision import MaskMetric

        require_pycocotools()
        return MaskMetric(self.find_objects, len(self.classes), self.backbone.config.image_size)


class InstanceAnswers(DetectionAnswers):
    """The objects of each image with their masks, the most probable first."""

    def _objects(self, found: dict[str, NDArray[Any]], size: ImageSize) -> tuple[DetectedObject, ...]:
        return tuple(
            SegmentedObject(one.label, one.index, one.probability, one.box, torch.from_numpy(grid), size)
            for one, grid in zip(super()._objects(found, size), found["grids"], strict=True)
        )

    def to_dict(self, answer: tuple[DetectedObject, ...]) -> dict[str, Any]:
        """``objects``: label, index, probability, box, and ``mask`` as COCO's run lengths (down the columns, starting
        with the background)."""
        values = super().to_dict(answer)
        for entry, one in zip(values["objects"], answer, strict=True):
            if isinstance(one, SegmentedObject):
                entry["mask"] = {"size": list(one.size), "counts": run_lengths(one.mask().numpy())}
        return values

    def truth(self, target: dict[str, Tensor]) -> tuple[DetectedObject, ...]:
        """The annotated boxes and masks."""
        return tuple(
            SegmentedObject(one.label, one.index, one.probability, one.box, mask, (mask.shape[0], mask.shape[1]))
            for one, mask in zip(super().truth(target), target["masks"].float(), strict=True)
        )

    def draw(self, image: Tensor, answer: tuple[DetectedObject, ...]) -> Tensor:
        """Masks, boxes and labels."""
        masks = [(one.mask(), one.index) for one in answer if isinstance(one, SegmentedObject)]
        return super().draw(draw_masks(image, masks, len(self.task.classes)), answer)


INSTANCES = TaskKind(
    task=InstanceTask,
    build=lambda backbone, spec, options: InstanceTask(backbone, spec.classes, options),
    answers=InstanceAnswers,
    load_data=load_instances,
    options=InstanceOptions,
)
