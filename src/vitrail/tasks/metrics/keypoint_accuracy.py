"""PCK and COCO's OKS average precision of heat maps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric

PCK_SHARE = 0.1
"""Share of the object's longer side; a keypoint nearer than this to its place is right."""

COCO_SIGMAS = (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)
"""Spread of annotators around the truth, in thousandths, for COCO's 17 keypoints of a person."""
OTHER_SIGMA = 50
"""The same for the keypoints of other skeletons, of which no comparison of annotators is known."""

THRESHOLDS = torch.linspace(0.5, 0.95, 10)


class PoseMetric(Metric):
    """``pck``, ``oks_ap`` and ``pck_per_class``.

    OKS AP as COCO defines it for objects whose boxes are given: one answer an object, matched with it, in the order of
    its mean score; the mean over ten thresholds of the 101-point interpolated precision.
    """

    full_state_update = False
    right: Tensor
    labelled: Tensor
    similarity: list[Tensor]
    confidence: list[Tensor]

    def __init__(self, decode: Callable[[Tensor], tuple[Tensor, Tensor]], num_keypoints: int) -> None:
        super().__init__()
        self.decode = decode
        sigmas = COCO_SIGMAS if num_keypoints == len(COCO_SIGMAS) else (OTHER_SIGMA,) * num_keypoints
        self.variances = (2 * torch.tensor(sigmas) / 1000).square()
        self.add_state("right", torch.zeros(num_keypoints), dist_reduce_fx="sum")
        self.add_state("labelled", torch.zeros(num_keypoints), dist_reduce_fx="sum")
        self.add_state("similarity", [], dist_reduce_fx="cat")
        self.add_state("confidence", [], dist_reduce_fx="cat")

    def update(self, output: Tensor, targets: dict[str, Tensor], frame: tuple[int, int] | None = None) -> None:
        """Heat maps (b, j, rows, columns) and the targets of the batch, in shares of the frame.

        Distances are taken in pixels of the heat map (or of ``frame``, rows and columns), whose pixels are square.
        """
        places, scores = self.decode(output)
        rows, columns = frame or (output.shape[-2], output.shape[-1])
        keypoints = targets["keypoints"].cpu()
        known = keypoints[..., 2]
        offsets = (places - keypoints[..., :2]) * torch.tensor([columns, rows])
        squares = offsets.square().sum(-1)
        limit = PCK_SHARE * targets["side"].cpu() * max(rows, columns)
        self.right += ((squares.sqrt() < limit.unsqueeze(1)) * known).sum(0).to(self.right.device)
        self.labelled += known.sum(0).to(self.labelled.device)
        area = (targets["area"].cpu() * rows * columns).unsqueeze(1)
        similar = (torch.exp(-squares / (2 * area * self.variances.cpu())) * known).sum(1) / known.sum(1).clamp(min=1)
        self.similarity.append(similar[known.sum(1) > 0].to(self.right.device))
        self.confidence.append(scores.mean(1)[known.sum(1) > 0].to(self.right.device))

    def compute(self) -> dict[str, Tensor]:
        """Scalars, and one value for each keypoint."""
        if len(self.similarity) == 0:
            similarity = confidence = torch.zeros(0)
        else:
            similarity = torch.cat(list(self.similarity)).cpu()
            confidence = torch.cat(list(self.confidence)).cpu()
        ordered = similarity[confidence.argsort(descending=True, stable=True)]
        precisions = [average_precision(ordered >= threshold) for threshold in THRESHOLDS]
        return {
            "pck": self.right.sum() / self.labelled.sum().clamp(min=1),
            "oks_ap": torch.stack(precisions).mean(),
            "pck_per_class": self.right / self.labelled.clamp(min=1),
        }


def average_precision(hits: Tensor) -> Tensor:
    """101-point interpolated precision of answers (n,) in the order of their confidence, one for each object."""
    if len(hits) == 0:
        return torch.tensor(0.0)
    found = hits.double().cumsum(0)
    precision = found / torch.arange(1, len(hits) + 1)
    recall = found / len(hits)
    best = precision.flip(0).cummax(0).values.flip(0)
    places = torch.searchsorted(recall, torch.linspace(0, 1, 101, dtype=torch.float64))
    return torch.where(places < len(hits), best[places.clamp(max=len(hits) - 1)], 0.0).mean().float()
