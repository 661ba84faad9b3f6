"""Lesson on maps: levels of the student, projected, imitate levels of the teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.core.types import FeatureInfo
from vitrail.tasks.imitation import weighted_mean
from vitrail.tasks.teacher import Seen
from vitrail.training.distillation.config import Distance, LessonName
from vitrail.training.distillation.lesson import Lesson
from vitrail.training.distillation.levels import Pair

Importance = Callable[[Tensor, tuple[int, int]], Tensor | None]
"""Function from the teacher's raw output and the size of a map to the weights (b, 1, h, w) of its places."""


class FeaturesLesson(Lesson):
    """Maps of the student, each through a 1x1 convolution, imitate maps of the teacher, which are resized to them.

    Args:
        name: "features" (level by level) or "tokens" (the teacher's last level).
        pairs: which levels are compared.
        student, teacher: all levels of both.
        distance: how places are compared.
        importance: weights of places, from the teacher's output; None where all count alike.
    """

    def __init__(
        self,
        name: LessonName,
        pairs: Sequence[Pair],
        student: Sequence[FeatureInfo],
        teacher: Sequence[FeatureInfo],
        *,
        distance: Distance,
        importance: Importance | None = None,
    ) -> None:
        super().__init__()
        self.name, self.distance, self.importance = name, distance, importance
        self.wants_output = importance is not None
        self.pairs = tuple(pairs)
        self.student_levels, self.teacher_levels = zip(*pairs, strict=True)
        self.projectors = nn.ModuleList(
            nn.Conv2d(student[own].channels, teacher[other].channels, 1) for own, other in pairs
        )

    def forward(self, student: Seen, teacher: Seen) -> Tensor:
        """Mean over the pairs of levels."""
        losses = []
        for (own, other), project in zip(self.pairs, self.projectors, strict=True):
            projected = project(student.maps[own]).float()
            wanted = resize_map(teacher.maps[other].float(), (projected.shape[-2], projected.shape[-1]))
            weights = None
            if self.importance is not None and teacher.output is not None:
                weights = self.importance(teacher.output, (projected.shape[-2], projected.shape[-1]))
            losses.append(weighted_mean(distances(projected, wanted, self.distance), weights))
        return torch.stack(losses).mean()


def resize_map(wanted: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (b, c, h, w) at another size: places are averaged where it shrinks."""
    if wanted.shape[-2:] == size:
        return wanted
    smaller = size[0] <= wanted.shape[-2] and size[1] <= wanted.shape[-1]
    if smaller:
        return F.adaptive_avg_pool2d(wanted, size)
    return F.interpolate(wanted, size=size, mode="bilinear", align_corners=False)


def distances(student: Tensor, teacher: Tensor, distance: Distance) -> Tensor:
    """Distance of two maps (b, c, h, w) at each place: (b, 1, h, w).

    "whitened" is the smooth L1 distance to the teacher's features, each place of which has mean 0 and deviation 1 (Wei
    et al., "Contrastive Learning Rivals Masked Image Modeling in Fine-tuning via Feature Distillation", 2022,
    arXiv:2205.14141).
    """
    if distance == "cosine":
        return 1 - F.cosine_similarity(student, teacher, dim=1).unsqueeze(1)
    if distance == "mse":
        return (student - teacher).square().mean(1, keepdim=True)
    white = F.layer_norm(teacher.permute(0, 2, 3, 1), (teacher.shape[1],)).permute(0, 3, 1, 2)
    return F.smooth_l1_loss(student, white, beta=2.0, reduction="none").mean(1, keepdim=True)
