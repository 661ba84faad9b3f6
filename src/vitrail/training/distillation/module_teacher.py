"""A teacher that is a PyTorch module: a run, weights of ours, or a model of timm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vitrail.core.types import ImageSize, Preprocessing
from vitrail.models import Backbone
from vitrail.tasks import Task
from vitrail.tasks.teacher import Seen, Teacher
from vitrail.training.distillation.watching import watched


class ModuleTeacher(Teacher):
    """A backbone, perhaps with its task, in evaluation mode and without gradients.

    Args:
        title: what it is, for people.
        backbone: the model.
        preprocessing: what it expects of an image.
        task: the task around the backbone; without, it teaches its maps alone.
        classes: names of the task's classes; empty where they are unknown.
        fingerprint: hash of its weights.
        device: where it computes; None follows the images.
    """

    def __init__(
        self,
        title: str,
        backbone: Backbone,
        preprocessing: Preprocessing,
        *,
        task: Task | None = None,
        classes: Sequence[str] = (),
        fingerprint: str = "",
        device: torch.device | None = None,
    ) -> None:
        self.title, self.backbone, self.preprocessing = title, backbone, preprocessing
        self.task, self.task_name = task, task.name if task else ""
        self.classes, self.fingerprint = tuple(classes), fingerprint
        self.levels = backbone.feature_info
        self.num_outputs = backbone.num_classes if task is not None and task.probed else 0
        self.device = device
        self.module: torch.nn.Module = (task or backbone).eval().requires_grad_(False)
        self.num_params = sum(one.numel() for one in self.module.parameters())

    @torch.no_grad()
    def show(self, images: Tensor, levels: Sequence[int] = (), *, output: bool = True) -> Seen:
        where = self.device or images.device
        self.module.to(where)
        pixels = resized(images.to(where), self.preprocessing.image_size)
        pixels = self.preprocessing.normalize(pixels)
        half = where.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        with torch.autocast(where.type, torch.bfloat16, enabled=half), watched(self.backbone, levels) as maps:
            answer = None
            if output and self.task is not None:
                answer = self.task(pixels).to(images.device, torch.float32)
            elif levels:
                self.backbone.forward_intermediates(pixels, levels, norm=True, intermediates_only=True)
        shown = {index: one.to(images.device, torch.float32) for index, one in maps.items()}
        return Seen(output=answer, maps=shown)


def resized(images: Tensor, size: ImageSize) -> Tensor:
    """uint8 images (b, c, h, w) at another size: float32 where they change, from 0 to 255."""
    if (images.shape[-2], images.shape[-1]) == size:
        return images
    wanted = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
    return wanted.clamp(0, 255)
