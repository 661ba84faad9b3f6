"""How far the raw output of a student is from that of its teacher: one function for each kind of output."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

Imitation = Callable[[Tensor, Tensor, float], Tensor]
"""Function from a student's raw output, a teacher's, and a temperature, to a scalar that is smallest where they are
alike."""

LEAST_CERTAIN = 0.1
"""Least probability of a thing that a teacher of queries teaches."""

BOX_WEIGHT, OVERLAP_WEIGHT = 5.0, 2.0
"""Weights of the distance and of the overlap of boxes, as in the detectors' own losses."""

LEAST = 1e-6
"""Smallest divisor."""


def soft_labels(output: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softened probabilities, times the square of the temperature, which keeps its
    gradients as large as those of the labels (Hinton et al. 2015, section 2.1).

    Args:
        output, reference: logits (b, num_classes, ...); where there are places behind the classes, their mean counts.
        temperature: what the logits are divided by before the softmax.
    """
    student = (output.float() / temperature).log_softmax(1)
    teacher = (reference.float() / temperature).log_softmax(1)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(1).mean()


def hard_labels(output: Tensor, reference: Tensor, _temperature: float) -> Tensor:
    """Cross-entropy with the teacher's most probable class (DeiT, Touvron et al., ICML 2021, section 4).

    Args:
        output, reference: logits (b, num_classes, ...).
    """
    return F.cross_entropy(output.float(), reference.argmax(1))


def correlation(output: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """One minus the correlation of the probabilities within each image, plus the same within each class over the batch
    (DIST, Huang et al., NeurIPS 2022, arXiv:2205.10536): what a teacher much stronger than its student can teach.

    Args:
        output, reference: logits (b, num_classes).
        temperature: what the logits are divided by before the softmax.
    """
    student = (output.float() / temperature).softmax(1)
    teacher = (reference.float() / temperature).softmax(1)
    within_images = 1 - _pearson(student, teacher).mean()
    if len(output) < 2:
        return temperature**2 * within_images
    return temperature**2 * (within_images + 1 - _pearson(student.T, teacher.T).mean())


def _pearson(first: Tensor, second: Tensor) -> Tensor:
    """Correlation of each row of two matrices (n, m): (n,)."""
    return F.cosine_similarity(first - first.mean(1, keepdim=True), second - second.mean(1, keepdim=True), dim=1)


def channels(output: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of each class's map as a distribution over the places (channel-wise distillation, Shu
    et al., ICCV 2021, arXiv:2011.13256).

    Args:
        output, reference: logits (b, num_classes, h, w).
        temperature: what the logits are divided by before the softmax over the places.
    """
    student = (output.float().flatten(2) / temperature).log_softmax(2)
    teacher = (reference.float().flatten(2) / temperature).log_softmax(2)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(2).mean()


def each_label(output: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of each class's probability of being there, the mean over the classes.

    Args:
        output, reference: logits (b, num_classes).
        temperature: what the logits are divided by before the sigmoid.
    """
    return temperature**2 * _binary(output.float() / temperature, reference.float() / temperature).mean()


def _binary(student: Tensor, teacher: Tensor) -> Tensor:
    """Divergence of two Bernoulli distributions, from their logits."""
    wanted = teacher.sigmoid()
    own = F.binary_cross_entropy_with_logits(teacher, wanted, reduction="none")
    return F.binary_cross_entropy_with_logits(student, wanted, reduction="none") - own


def squares(output: Tensor, reference: Tensor, _temperature: float) -> Tensor:
    """Mean squared distance, for outputs that are no probabilities.

    Args:
        output, reference: of the same shape.
    """
    return F.mse_loss(output.float(), reference.float())


def shares(output: Tensor, reference: Tensor, _temperature: float) -> Tensor:
    """Mean squared distance of cumulated shares of ordered scores, as the earth mover's distance has it.

    Args:
        output, reference: shares (b, scores), each row summing to 1.
    """
    return (output.float().cumsum(1) - reference.float().cumsum(1)).square().sum(1).mean()


def anchored_rows(output: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """Distance of rows that mean the same anchors: probabilities where the two differ, weighted by the square of the
    difference (as in Li et al., Generalized Focal Loss, NeurIPS 2020), and boxes weighted by the teacher's certainty.

    Args:
        output, reference: (b, anchors, 4 + num_classes), boxes as shares of the frame and logits.
        temperature: what the logits are divided by.
    """
    student, teacher = output[..., 4:].float() / temperature, reference[..., 4:].float() / temperature
    certainty = reference[..., 4:].float().sigmoid().amax(-1)
    total = certainty.sum().clamp(min=LEAST)
    apart = (student.sigmoid() - teacher.sigmoid()).square().detach()
    classes = temperature**2 * (apart * _binary(student, teacher)).sum() / total
    boxes = generalized_box_iou_loss(output[..., :4].float(), reference[..., :4].float())
    return classes + (certainty * boxes).sum() / total


def matched_rows(output: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """Distance of rows that are a set: each thing that the teacher finds is matched with one row of the student, as
    labels are (Carion et al., ECCV 2020), and teaches it by its certainty.

    Args:
        output, reference: (b, rows, 4 + num_classes), boxes as shares of the frame and logits; the numbers of rows may
            differ.
        temperature: what the logits are divided by.
    """
    from scipy.optimize import linear_sum_assignment  # half a second to import, which most commands need not wait for

    total, certainties = output.new_zeros(()), output.new_zeros(())
    for student, teacher in zip(output.float(), reference.float(), strict=True):
        certain = teacher[:, 4:].sigmoid().amax(-1)
        teacher, certainty = teacher[certain >= LEAST_CERTAIN], certain[certain >= LEAST_CERTAIN]
        with torch.no_grad():
            apart = torch.cdist(student[:, 4:].sigmoid(), teacher[:, 4:].sigmoid(), p=1)
            cost = apart + BOX_WEIGHT * torch.cdist(student[:, :4], teacher[:, :4], p=1)
            rows, found = (torch.from_numpy(one).to(output.device) for one in linear_sum_assignment(cost.cpu().numpy()))
        own, other, weight = student[rows], teacher[found], certainty[found]
        classes = temperature**2 * _binary(own[:, 4:] / temperature, other[:, 4:] / temperature).sum(1)
        boxes = BOX_WEIGHT * (own[:, :4] - other[:, :4]).abs().sum(1)
        boxes = boxes + OVERLAP_WEIGHT * generalized_box_iou_loss(own[:, :4], other[:, :4])
        total, certainties = total + (weight * (classes + boxes)).sum(), certainties + weight.sum()
    return total / certainties.clamp(min=LEAST)


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of values (b, 1, h, w), each with a weight of the same shape; all alike where there are none."""
    if weights is None:
        return values.mean()
    return (values * weights).sum() / weights.sum().clamp(min=LEAST)


def painted(boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Tensor:
    """At each place the largest score of the boxes that cover it.

    Args:
        boxes: left, top, right, bottom as shares of the frame (n, 4).
        scores: (n,).
        size: rows and columns of the result.

    Returns:
        (1, rows, columns), 0 where there is no box.
    """
    rows, columns = size
    y = (torch.arange(rows, device=boxes.device) + 0.5) / rows
    x = (torch.arange(columns, device=boxes.device) + 0.5) / columns
    # a box that is thinner than a place still has the place of its centre
    half = boxes.new_tensor([0.5 / columns, 0.5 / rows])
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=0)
    reach = sides.maximum(half)
    covers_y = (y - centres[:, 1:]).abs() <= reach[:, 1:]
    covers_x = (x - centres[:, :1]).abs() <= reach[:, :1]
    covered = covers_y.unsqueeze(2) & covers_x.unsqueeze(1)
    if len(boxes) == 0:
        return boxes.new_zeros(1, rows, columns)
    return (covered * scores.view(-1, 1, 1)).amax(0, keepdim=True)
