"""The loss of tasks in which each class is a question of its own, of which data may leave some open."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vitrail.tasks.class_loss import ClassWeights, LossName


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelLoss:
    """A loss of logits (n, num_classes) with targets from 0 to 1, below 0 where they are unknown. With the probability
    p and q = max(p - margin, 0), it is the sum over the known entries of

        - target * weight_1 * (1 - p) ** positive_gamma * log p
        - (1 - target) * weight_0 * q ** negative_gamma * log (1 - q)

    over the number of classes. It is linear in the targets, so that the loss of mixed images is the mixture of their
    losses. Without gammas and margin it is the binary cross-entropy; with two equal gammas the focal loss (Lin et al.,
    ICCV 2017); with a larger one for the negatives the asymmetric loss (Ridnik et al., "Asymmetric Loss for Multi-Label
    Classification", ICCV 2021).

    Attributes:
        weights: weights of each class where an image has it not, and where it has it (2, num_classes), 1 on average
            over the training images; None for none.
        positive_gamma, negative_gamma: how much less right answers count.
        margin: probability up to which a class that an image has not costs nothing.
    """

    weights: Tensor | None = None
    positive_gamma: float = 0.0
    negative_gamma: float = 0.0
    margin: float = 0.0

    def __call__(self, logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """One loss a row (n,).

        Args:
            logits: (n, num_classes).
            targets: (n, num_classes).
            label_smoothing: share of a target that is spread over the classes: 1 becomes 1 - share + share / classes,
                and 0 becomes share / classes; with one class, half of the share is moved.
        """
        count = targets.shape[1]
        known = targets >= 0
        wanted = targets.clamp(min=0) * (1 - label_smoothing) + label_smoothing / max(count, 2)
        yes, no = self._positive(logits.float()), self._negative(logits.float())
        if self.weights is not None:
            no, yes = no * self.weights[0].to(logits.device), yes * self.weights[1].to(logits.device)
        return ((wanted * yes + (1 - wanted) * no) * known).sum(1) / count

    def _positive(self, logits: Tensor) -> Tensor:
        loss = F.softplus(-logits)
        return loss * _power(torch.sigmoid(-logits), self.positive_gamma) if self.positive_gamma else loss

    def _negative(self, logits: Tensor) -> Tensor:
        if not self.margin:
            loss = F.softplus(logits)
            return loss * _power(torch.sigmoid(logits), self.negative_gamma) if self.negative_gamma else loss
        shifted = (torch.sigmoid(logits) - self.margin).clamp(min=0)
        loss = -torch.log1p(-shifted)
        return loss * _power(shifted, self.negative_gamma) if self.negative_gamma else loss


def _power(share: Tensor, gamma: float) -> Tensor:
    # a bound, since powers below 1 have no slope at 0
    return share.clamp(min=torch.finfo(share.dtype).eps) ** gamma


def label_loss(
    shares: Tensor,
    *,
    loss: LossName,
    class_weights: ClassWeights | None,
    beta: float,
    gamma: float,
    asymmetry: tuple[float, float, float],
) -> LabelLoss:
    """The loss for training images with these classes.

    Args:
        shares: how many images have each class not, and how many have it (2, num_classes).
        loss: its kind: cross_entropy, focal or asymmetric.
        class_weights: "balanced" gives the images with a class as much weight together as those without it;
            "effective" weighs by one over the effective number: Cui et al., Class-Balanced Loss, CVPR 2019.
        beta: of the effective number; it stays below 1, which would be balanced.
        gamma: of the focal loss.
        asymmetry: positive and negative gamma, and the margin, of the asymmetric loss.
    """
    weights = None
    if class_weights is not None:
        counts = shares.double()
        rate = math.log(beta) if beta else -math.inf
        effective = counts if class_weights == "balanced" else -torch.expm1(counts * rate)
        weights = torch.where(counts > 0, 1 / effective, 0.0)
        weights = (weights * (counts.sum(0) / (weights * counts).sum(0).clamp(min=1e-12))).float()
    if loss == "asymmetric":
        positive, negative, margin = asymmetry
        return LabelLoss(weights=weights, positive_gamma=positive, negative_gamma=negative, margin=margin)
    focal = gamma if loss == "focal" else 0.0
    return LabelLoss(weights=weights, positive_gamma=focal, negative_gamma=focal)
