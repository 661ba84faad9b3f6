"""Two-stage detection: Faster R-CNN, Mask R-CNN, Cascade R-CNN, made of torchvision's parts.

Training is torchvision's: its proposal network, samplers, coders and losses. Inference is written with fixed numbers of
boxes instead of torchvision's lists, so that the model has one output of fixed shape, which every runtime can execute:
proposals are chosen by Fast NMS (Bolya et al., YOLACT, ICCV 2019, arXiv:1904.02689), a matrix of overlaps instead of a
loop, and boxes do not depend on their class, as in Cascade R-CNN.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_loss, project_masks_on_boxes
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import roi_align

from vitrail.core.types import ImageSize
from vitrail.tasks.heads.retinanet import ANCHOR_SCALE, Targets, focal_loss, match
from vitrail.tasks.heads.selection import nms_order, stable_topk

RATIOS = (0.5, 1.0, 2.0)
CANDIDATES = 1000
"""Anchors that are compared with one another at inference."""
DUPLICATE = 0.7
"""Overlap above which the less likely of two proposals is dropped."""
BOX_SIDE, MASK_SIDE, MASK_OUT = 7, 14, 28
SAMPLED = 256
"""Proposals an image that a stage is trained on, at most a quarter of them objects."""
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4
"""FPN, equation 1: a box of 224 pixels is pooled from the level of stride 2^4."""

STAGES = {
    1: ((0.5, (10.0, 10.0, 5.0, 5.0), 1.0),),
    3: (
        (0.5, (10.0, 10.0, 5.0, 5.0), 1.0),
        (0.6, (20.0, 20.0, 10.0, 10.0), 0.5),
        (0.7, (30.0, 30.0, 15.0, 15.0), 0.25),
    ),
}
"""Number of stages -> overlap from which a proposal is an object, scale of the box offsets, weight of the loss (Cai and
Vasconcelos, CVPR 2018, arXiv:1712.00726)."""


class BoxPredictor(nn.Module):
    """Class logits, the background first, and one box offset for all classes."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.classes = nn.Linear(width, num_classes + 1)
        self.offsets = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.classes(x), self.offsets(x)


class RegionDetector(nn.Module):
    """Proposals, then one or three stages that classify and refine each, then perhaps a mask for each.

    Args:
        width: channels of the levels.
        num_classes: without a background.
        size: (height, width) of the images.
        shapes: (rows, columns) of every level, the finest first; those from ``strides`` on serve the proposals alone.
        strides: strides of the levels that proposals are pooled from.
        num_stages: 1 (Faster R-CNN), or 3 (Cascade R-CNN).
        masks: predict a mask for each proposal (Mask R-CNN, He et al., ICCV 2017, arXiv:1703.06870).
        num_proposals: rows of the output.
        anchor_scale: half the side of a level's anchors, in its strides; FPN's anchors have sides of 8 strides.
    """

    anchors: Tensor
    frame: Tensor

    def __init__(
        self,
        width: int,
        num_classes: int,
        size: ImageSize,
        shapes: Sequence[ImageSize],
        *,
        strides: Sequence[float],
        num_stages: int = 1,
        masks: bool = False,
        num_proposals: int = 100,
        anchor_scale: float = ANCHOR_SCALE,
    ) -> None:
        super().__init__()
        self.num_classes, self.size, self.strides = num_classes, size, tuple(strides)
        self.num_proposals = num_proposals
        sides = tuple((round(2 * anchor_scale * size[0] / rows),) for rows, _ in shapes)
        generator = AnchorGenerator(sides, (RATIOS,) * len(sides))
        several = {"training": CANDIDATES, "testing": CANDIDATES}
        self.rpn = RegionProposalNetwork(
            generator, RPNHead(width, len(RATIOS)), 0.7, 0.3, SAMPLED, 0.5, several, several, DUPLICATE
        )
        self.stages = nn.ModuleList(
            _stage(width, num_classes, overlap, weights) for overlap, weights, _ in STAGES[num_stages]
        )
        self.loss_weights = tuple(weight for _, _, weight in STAGES[num_stages])
        self.mask_layers = MaskRCNNHeads(width, (width,) * 4, 1) if masks else None
        self.mask_predictor = MaskRCNNPredictor(width, width, num_classes + 1) if masks else None
        levels = [torch.zeros(1, 1, *shape) for shape in shapes]
        self.register_buffer("anchors", generator(_images(1, size, levels[0]), levels)[0], persistent=False)
        self.register_buffer("frame", torch.tensor([size[1], size[0]] * 2, dtype=torch.float32), persistent=False)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Levels (b, width, h_i, w_i) to (b, num_proposals, 4 + classes), boxes as shares of the frame and logits of
        the probabilities; with masks 28 x 28 logits more."""
        boxes = self._propose(levels)
        total = torch.zeros((), device=boxes.device)
        for stage in self.stages:
            logits, offsets = self._classify(stage, levels, boxes)
            total = total + logits.softmax(-1)
            boxes = self._refine(stage, offsets, boxes)
        probabilities = (total / len(self.stages))[..., 1:]
        parts = [boxes / self.frame, probabilities.logit(eps=1e-6)]
        if self.mask_layers is not None:
            parts.append(self._masks(levels, boxes, probabilities.argmax(-1) + 1))
        return torch.cat(parts, dim=-1)

    def _propose(self, levels: list[Tensor]) -> Tensor:
        """(b, num_proposals, 4) in pixels, the most likely first."""
        batch = levels[0].shape[0]
        objectness, offsets = concat_box_prediction_layers(*self.rpn.head(levels))
        chosen = stable_topk(objectness.reshape(batch, -1), CANDIDATES).unsqueeze(-1).expand(-1, -1, 4)
        offsets = offsets.reshape(batch, -1, 4).gather(1, chosen)
        anchors = self.anchors.expand(batch, -1, 4).gather(1, chosen)
        boxes = self._refine(self.rpn, offsets, anchors)
        duplicate = overlaps(boxes).triu(1).amax(1) > DUPLICATE
        kept = nms_order(duplicate, self.num_proposals)
        return boxes.gather(1, kept.unsqueeze(-1).expand(-1, -1, 4))

    def _refine(self, part: RegionProposalNetwork | RoIHeads, offsets: Tensor, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) moved by the offsets of one part of the detector, inside the frame."""
        moved = part.box_coder.decode_single(offsets.float().reshape(-1, 4), boxes.reshape(-1, 4)).reshape(boxes.shape)
        return torch.minimum(moved.clamp(min=0), self.frame)

    def _classify(self, stage: RoIHeads, levels: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (b, n, 4) to logits (b, n, 1 + classes) and offsets (b, n, 4)."""
        batch, count = boxes.shape[:2]
        pooled = self._pool(levels, rows_of(boxes), BOX_SIDE)
        logits, offsets = stage.box_predictor(stage.box_head(pooled))
        return logits.float().reshape(batch, count, -1), offsets.reshape(batch, count, 4)

    def _masks(self, levels: list[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """(b, n, 28 * 28) logits of the masks of the given classes."""
        logits = self._mask_logits(self._pool(levels, rows_of(boxes), MASK_SIDE)).flatten(2)
        index = labels.reshape(-1, 1, 1).expand(-1, 1, MASK_OUT**2)
        return logits.gather(1, index).reshape(*labels.shape, MASK_OUT**2).float()

    def _mask_logits(self, pooled: Tensor) -> Tensor:
        assert self.mask_layers is not None
        assert self.mask_predictor is not None
        logits: Tensor = self.mask_predictor(self.mask_layers(pooled))
        return logits

    def _pool(self, levels: list[Tensor], rows: Tensor, side: int) -> Tensor:
        """RoIAlign of rows (n, 5: image, left, top, right, bottom), each in the level that suits its size.

        At inference every level is asked for every box, because a choice would make shapes depend on values; in
        training only for its own, because RoIAlign's backward pass is most of a step.
        """
        sides = (rows[:, 3] - rows[:, 1]).clamp(min=0) * (rows[:, 4] - rows[:, 2]).clamp(min=0)
        wanted = CANONICAL_SIDE / 2**CANONICAL_LEVEL
        stride = sides.sqrt().clamp(min=1e-3) / wanted
        # the coarsest level whose stride is not above the wanted one, or the finest
        bounds = stride.new_tensor(self.strides[1:])
        chosen = (stride.unsqueeze(1) * (1 + 1e-6) >= bounds).sum(1)
        if self.training:
            pooled = levels[0].new_zeros(len(rows), levels[0].shape[1], side, side, dtype=torch.float32)
            for index, pixels in enumerate(self.strides):
                own = (chosen == index).nonzero().squeeze(1)
                pooled = pooled.index_copy(0, own, roi_align(levels[index].float(), rows[own], side, 1 / pixels, 2))
            return pooled
        pooled = torch.zeros((), device=rows.device)
        for index, pixels in enumerate(self.strides):
            part = roi_align(levels[index].float(), rows, side, 1 / pixels, 2)
            pooled = pooled + part * (chosen == index).to(part.dtype).view(-1, 1, 1, 1)
        return pooled

    def training_loss(self, levels: list[Tensor], targets: Targets) -> Tensor:
        """The losses of the proposals, of every stage and of the masks. Crowds are left out."""
        known = [self._in_pixels(target) for target in targets]
        images = _images(len(targets), self.size, levels[0])
        found, losses = self.rpn(images, {str(i): level.float() for i, level in enumerate(levels)}, known)
        total = sum(losses.values(), torch.zeros((), device=levels[0].device))
        stages: list[RoIHeads] = list(self.stages)
        for stage, weight in zip(stages, self.loss_weights, strict=True):
            found, matched, labels, offsets = stage.select_training_samples(found, known)
            rows = torch.cat([_numbered(boxes, i) for i, boxes in enumerate(found)])
            logits, moves = stage.box_predictor(stage.box_head(self._pool(levels, rows, BOX_SIDE)))
            every = moves.float().repeat(1, self.num_classes + 1)  # torchvision expects one offset a class
            total = total + weight * sum(fastrcnn_loss(logits.float(), every, labels, offsets))
            seen, counts = found, [len(boxes) for boxes in found]
            moved = self._refine(stage, moves.detach(), torch.cat(found))
            found = list(moved.split(counts))
        if self.mask_layers is None:
            return total
        return total + self._mask_loss(levels, seen, matched, labels, known)

    def _mask_loss(
        self,
        levels: list[Tensor],
        boxes: Sequence[Tensor],
        matched: Sequence[Tensor],
        labels: Sequence[Tensor],
        targets: Targets,
    ) -> Tensor:
        positive = [one > 0 for one in labels]
        boxes = [one[kept] for one, kept in zip(boxes, positive, strict=True)]
        matched = [one[kept] for one, kept in zip(matched, positive, strict=True)]
        rows = torch.cat([_numbered(one, i) for i, one in enumerate(boxes)])
        logits = self._mask_logits(self._pool(levels, rows, MASK_SIDE)).float()
        wanted, known = [target["masks"] for target in targets], [target["labels"] for target in targets]
        loss: Tensor = maskrcnn_loss(logits, boxes, wanted, known, matched)
        return loss

    def _in_pixels(self, target: dict[str, Tensor]) -> dict[str, Tensor]:
        kept = ~target["iscrowd"]
        pixels = {"boxes": target["boxes"][kept] * self.frame, "labels": target["labels"][kept] + 1}
        return pixels | ({"masks": target["masks"][kept]} if "masks" in target else {})

    def loss(self, output: Tensor, targets: Targets) -> Tensor:
        """The loss of a finished answer, for comparing epochs: :func:`~vitrail.tasks.heads.retinanet.focal_loss`, with
        boxes matched to the objects that they overlap, and cross-entropy of their masks."""
        matches = [match(values[:, :4].detach(), target) for values, target in zip(output, targets, strict=True)]
        total = focal_loss(output[..., : 4 + self.num_classes], matches, targets)
        if self.mask_layers is None:
            return total
        losses = [
            self._mask_error(values, matched, target)
            for values, matched, target in zip(output, matches, targets, strict=True)
            if bool((matched >= 0).any())
        ]
        return total + (torch.stack(losses).mean() if losses else 0)

    def _mask_error(self, values: Tensor, matched: Tensor, target: dict[str, Tensor]) -> Tensor:
        positive = matched >= 0
        boxes = values[positive, :4].detach() * self.frame.to(values.device)
        wanted = project_masks_on_boxes(target["masks"], boxes, matched[positive], MASK_OUT)
        return F.binary_cross_entropy_with_logits(values[positive, 4 + self.num_classes :], wanted.flatten(1))


def _stage(width: int, num_classes: int, overlap: float, weights: tuple[float, ...]) -> RoIHeads:
    hidden = 4 * width
    head, predictor = TwoMLPHead(width * BOX_SIDE**2, hidden), BoxPredictor(hidden, num_classes)
    # thresholds of its own inference, which is not used
    return RoIHeads(None, head, predictor, overlap, overlap, SAMPLED, 0.25, weights, 0.0, 1.0, 1)


def _images(batch: int, size: ImageSize, like: Tensor) -> ImageList:
    """What torchvision asks of the images, their sizes, without their pixels."""
    return ImageList(like.new_zeros(1).expand(batch, 1, *size), [size] * batch)


def _numbered(boxes: Tensor, image: int) -> Tensor:
    return torch.cat([boxes.new_full((len(boxes), 1), image), boxes], 1)


def rows_of(boxes: Tensor) -> Tensor:
    """Boxes (b, n, 4) as rows (b * n, 5), the number of the image first."""
    numbers = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype).view(-1, 1, 1)
    return torch.cat([numbers.expand(-1, boxes.shape[1], 1), boxes], -1).reshape(-1, 5)


def overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of all pairs: boxes (b, n, 4) to (b, n, n)."""
    first, second = boxes.unsqueeze(2), boxes.unsqueeze(1)
    shared = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(
        min=0
    )
    inner = shared[..., 0] * shared[..., 1]
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return inner / (areas.unsqueeze(2) + areas.unsqueeze(1) - inner).clamp(min=1e-9)
