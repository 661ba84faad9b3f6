"""The loss of tasks that choose one of several classes, for data whose classes are uneven or whose images are easy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

LossName = Literal["cross_entropy", "focal", "logit_adjusted", "asymmetric"]
ClassWeights = Literal["balanced", "effective"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassLoss:
    """A loss of logits with soft labels, which is the mean over the rows of

        sum over c of  target_c * weights_c * (1 - p_c) ** gamma * cross_entropy_c

    where p is the softmax of the logits plus ``shifts``, and cross_entropy_c is that with class c, smoothed. It is
    linear in the targets, so that the loss of mixed images is the mixture of their losses; and a mean over rows, so
    that the loss of a batch is the mean over its parts.

    Attributes:
        weights: weight of each class (num_classes,), 1 on average over the training images; None for none.
        gamma: how much less right answers count: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
        shifts: numbers added to the logits in training (num_classes,), scaled logarithms of the classes' shares: Menon
            et al., Long-Tail Learning via Logit Adjustment, ICLR 2021; None for none.
    """

    weights: Tensor | None = None
    gamma: float = 0.0
    shifts: Tensor | None = None

    def __call__(self, logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, ignore: int = -100) -> Tensor:
        """One loss a row (n,).

        Args:
            logits: (n, num_classes).
            targets: class indices (n,) or soft labels (n, num_classes).
            label_smoothing: share of the target that is spread over all classes.
            ignore: index of no class, whose rows lose nothing.
        """
        logits = logits.float() if self.shifts is None else logits.float() + self.shifts.to(logits.device)
        log_p = logits.log_softmax(1)
        losses = -(1 - label_smoothing) * log_p - label_smoothing * log_p.mean(1, keepdim=True)
        if self.gamma:
            # a bound, since powers below 1 have no slope at 0
            losses = losses * (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps) ** self.gamma
        if self.weights is not None:
            losses = losses * self.weights.to(logits.device)
        if targets.ndim == 1:
            return F.nll_loss(-losses, targets, ignore_index=ignore, reduction="none")
        return (targets * losses).sum(1)


def class_loss(
    shares: Tensor,
    *,
    loss: LossName,
    class_weights: ClassWeights | None,
    beta: float,
    gamma: float,
    tau: float,
) -> ClassLoss:
    """The loss for training images with these classes.

    Args:
        shares: how many images each class has (num_classes,), in fractions where an image has several.
        loss: its kind.
        class_weights: "balanced" weighs by one over the number of images; "effective" by one over the effective number
            (1 - beta ** n) / (1 - beta): Cui et al., Class-Balanced Loss, CVPR 2019. Classes without images weigh
            nothing.
        beta: of the effective number; 0 weighs all alike; it stays below 1, which would be balanced.
        gamma: of the focal loss.
        tau: scale of the logit adjustment.
    """
    shares = shares.double()
    weights = None
    if class_weights is not None:
        rate = math.log(beta) if beta else -math.inf
        effective = shares if class_weights == "balanced" else -torch.expm1(shares * rate)
        weights = torch.where(shares > 0, 1 / effective, 0.0)
        weights = (weights * (shares.sum() / (weights * shares).sum())).float()
    shifts = None
    if loss == "logit_adjusted":
        known = shares.where(shares > 0, shares[shares > 0].min())
        shifts = (tau * (known / known.sum()).log()).float()
    return ClassLoss(weights=weights, gamma=gamma if loss == "focal" else 0.0, shifts=shifts)
