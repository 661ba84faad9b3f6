"""One-stage detection: every anchor of every level is classified at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from vitrail.core.types import ImageSize

ANCHOR_SCALE = 4.0
"""Side of a level's smallest anchors, in its strides, as in RetinaNet."""
SCALES = tuple(2 ** (i / 3) for i in range(3))
RATIOS = (0.5, 1.0, 2.0)
"""Heights over widths."""
FOREGROUND, BACKGROUND = 0.5, 0.4
"""Overlap with an object from which an anchor is matched with it, and below which it is background."""
LARGEST_GROWTH = math.log(1000 / 16)

Targets = list[dict[str, Tensor]]


class RetinaNet(nn.Module):
    """Focal loss for the classes, generalised IoU for the boxes (Lin et al., ICCV 2017, arXiv:1708.02002).

    Args:
        width: channels of the levels.
        num_classes: without a background.
        size: (height, width) of the images.
        shapes: (rows, columns) of every level, the finest first.
        anchor_scale: side of a level's smallest anchors, in its strides.

    Attributes:
        anchors: (n, 4): centre x, centre y, width, height as shares of the frame, in the order of the head.
    """

    anchors: Tensor

    def __init__(
        self,
        width: int,
        num_classes: int,
        size: ImageSize,
        shapes: Sequence[ImageSize],
        *,
        anchor_scale: float = ANCHOR_SCALE,
    ) -> None:
        super().__init__()
        # GroupNorm: the head is shared by levels of different statistics, and detection batches are small
        norm = partial(nn.GroupNorm, width // 8)
        self.layers = RetinaNetHead(width, len(SCALES) * len(RATIOS), num_classes, norm_layer=norm)
        self.register_buffer("anchors", make_anchors(size, shapes, anchor_scale), persistent=False)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Levels (b, width, h_i, w_i) to (b, anchors, 4 + classes): boxes as shares of the frame, and logits."""
        raw = self.layers(levels)
        offsets, anchors = raw["bbox_regression"].float(), self.anchors
        centres = anchors[:, :2] + offsets[..., :2] * anchors[:, 2:]
        halves = anchors[:, 2:] * offsets[..., 2:].clamp(max=LARGEST_GROWTH).exp() / 2
        return torch.cat([centres - halves, centres + halves, raw["cls_logits"].float()], dim=-1)

    def loss(self, output: Tensor, targets: Targets) -> Tensor:
        """See :func:`focal_loss`; anchors are matched with objects."""
        corners = self.corners().to(output.device)  # files are judged on the CPU, whatever the model is on
        return focal_loss(output, [match(corners, target) for target in targets], targets)

    def corners(self) -> Tensor:
        """The anchors as left, top, right, bottom."""
        centres, halves = self.anchors[:, :2], self.anchors[:, 2:] / 2
        return torch.cat([centres - halves, centres + halves], 1)


def make_anchors(size: ImageSize, shapes: Sequence[ImageSize], anchor_scale: float = ANCHOR_SCALE) -> Tensor:
    """(n, 4): centre x, centre y, width, height as shares of the frame, level by level as the head orders them."""
    found = []
    for rows, columns in shapes:
        y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
        stride = (size[0] / rows, size[1] / columns)
        sides = [
            (side * ratio**-0.5 * stride[1] / size[1], side * ratio**0.5 * stride[0] / size[0])
            for ratio in RATIOS
            for side in (anchor_scale * scale for scale in SCALES)
        ]
        centres = torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, len(sides), 2)
        found.append(torch.cat([centres, torch.tensor(sides).expand(len(centres), -1, 2)], -1).reshape(-1, 4))
    return torch.cat(found)


def focal_loss(output: Tensor, matches: Sequence[Tensor], targets: Targets) -> Tensor:
    """Focal loss of all clear boxes plus generalised IoU loss of those that are matched with an object, a mean over
    the images, each divided by its number of such boxes.

    Args:
        output: (b, n, 4 + classes), shares of the frame and logits.
        matches: result (n,) of :func:`match` for each image.
        targets: ``boxes`` in shares of the frame, ``labels``.
    """
    losses = []
    for values, matched, target in zip(output, matches, targets, strict=True):
        boxes, logits = values[:, :4], values[:, 4:]
        positive = matched >= 0
        count = positive.sum().clamp(min=1)
        wanted = torch.zeros_like(logits)
        wanted[positive, target["labels"][matched[positive]]] = 1.0
        clear = matched != -2
        focal = sigmoid_focal_loss(logits[clear], wanted[clear], reduction="sum")
        overlap = generalized_box_iou_loss(boxes[positive], target["boxes"][matched[positive]], reduction="sum")
        losses.append((focal + overlap) / count)
    return torch.stack(losses).mean()


@torch.no_grad()
def match(boxes: Tensor, target: dict[str, Tensor]) -> Tensor:
    """The object that each box (n, 4), corners as shares of the frame, is matched with: (n,), -1 for background, -2
    where that is unclear."""
    matched = torch.full((len(boxes),), -1, device=boxes.device)
    if len(target["boxes"]) == 0:
        return matched
    overlap = box_iou(target["boxes"], boxes)
    best, which = overlap.max(0)
    matched[best >= BACKGROUND] = -2
    matched[best >= FOREGROUND] = which[best >= FOREGROUND]
    # an object that no box covers well gets the ones that cover it best
    top = overlap.max(1, keepdim=True).values
    objects, places = ((overlap == top) & (top > 0)).nonzero(as_tuple=True)
    matched[places] = objects
    crowd = target["iscrowd"]
    matched[(matched >= 0) & crowd[matched.clamp(min=0)]] = -2
    return matched
