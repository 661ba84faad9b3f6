"""The least probability that an object of an answer should have: the one with the best F1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou

SAME = 0.5
"""Overlap from which a found object and an annotated one of its class are the same."""


class ConfidenceSearch:
    """F1 of all objects together, at every least probability.

    Args:
        decode: raw outputs (b, ...) to ``boxes``, ``scores`` and ``labels`` of each image, the most probable first.
        least: the least probability that it decodes.
    """

    def __init__(self, decode: Callable[[Tensor], list[dict[str, Tensor]]], least: float) -> None:
        self.decode, self.least = decode, least
        self.num_objects = 0
        self.scores: list[Tensor] = []
        self.right: list[Tensor] = []

    def update(self, output: Tensor, targets: list[dict[str, Tensor]]) -> None:
        """Raw output and targets of a batch. Objects found in crowds are not counted."""
        for found, target in zip(self.decode(output), targets, strict=True):
            right, counted = _judge(found, target)
            self.num_objects += int((~target["iscrowd"]).sum())
            self.scores.append(found["scores"][counted].cpu())
            self.right.append(right[counted].cpu())

    def best(self) -> tuple[float, float]:
        """The least probability, halfway between the last object that it lets in and the next one, and its F1.

        Where no object was found rightly, F1 is 0 and the probability one half.
        """
        scores, order = torch.cat([*self.scores, torch.zeros(0)]).double().sort(descending=True, stable=True)
        right = torch.cat([*self.right, torch.zeros(0, dtype=torch.bool)])[order].double().cumsum(0)
        if not len(right) or not right[-1]:
            return 0.5, 0.0
        counts = torch.arange(1, len(scores) + 1)
        after = torch.cat([scores[1:], torch.tensor([self.least], dtype=torch.float64)])
        f1 = torch.where(scores > after, 2 * right / (counts + self.num_objects), 0.0)  # all or none of equal ones
        last = int(f1.argmax())
        return round(float(scores[last] + after[last]) / 2, 6), float(f1[last])

    def by_class(self) -> tuple[float, ...]:
        """Nothing: one holds for all classes."""
        return ()


def _judge(found: dict[str, Any], target: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Whether each found object (n,) is right, and whether it counts: each annotated one is found once."""
    which, in_crowd = match_objects(found, target)
    return which >= 0, (which >= 0) | ~in_crowd


def match_objects(found: dict[str, Any], target: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Which annotated object each found one is: of the same class, and alike by :data:`SAME`.

    Args:
        found: ``boxes`` (n, 4), ``labels`` (n,), the most probable first: it may choose first.
        target: ``boxes`` (m, 4) in the same unit, ``labels`` (m,), ``iscrowd`` (m,).

    Returns:
        (n,) indices of annotated objects, each at most once, -1 for none; and (n,) whether it lies in a crowd of its
        class.
    """
    boxes, crowd = target["boxes"].to(found["boxes"]), target["iscrowd"].to(found["boxes"].device)
    alike = found["labels"].unsqueeze(1) == target["labels"].to(found["labels"])
    overlap = box_iou(found["boxes"], boxes) * (alike & ~crowd)
    which = torch.full((len(found["labels"]),), -1)
    for index in range(len(which)):
        if overlap.shape[1] and overlap[index].max() >= SAME:
            which[index] = overlap[index].argmax()
            overlap[:, which[index]] = 0
    corners = (
        torch.maximum(found["boxes"][:, None, :2], boxes[:, :2]),
        torch.minimum(found["boxes"][:, None, 2:], boxes[:, 2:]),
    )
    inside = (corners[1] - corners[0]).clamp(min=0).prod(2) / box_area(found["boxes"]).unsqueeze(1).clamp(min=1e-12)
    return which, ((inside >= SAME) & alike & crowd).any(1).cpu()
