from __future__ import annotations

import pytest
import torch
from torch import nn

from vitrail.models import create_model
from vitrail.tasks.detection import DetectionOptions, DetectionTask
from vitrail.tasks.heads.pyramid import Pyramid


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    torch.manual_seed(0)
    fields = {"embed_dim": 32, "depth": 1, "num_heads": 2, "patch_size": 14}
    return create_model("vit_nano_patch4", num_classes=0, image_size=56, **fields).eval()


def test_strides_of_a_plain_model_are_those_of_its_maps(backbone: nn.Module) -> None:
    pyramid = Pyramid(backbone)
    maps = pyramid(backbone, torch.zeros(1, 3, 56, 56))
    assert pyramid.strides == (3.5, 7, 14, 28)
    assert [56 / level.shape[-1] for level in maps] == list(pyramid.strides)


def test_boxes_are_pooled_where_they_are_with_patches_of_14_pixels(backbone: nn.Module) -> None:
    """A region of a map that grows to the right has the values of its own place."""
    task = DetectionTask(backbone, ["a"], DetectionOptions(head="fasterrcnn", width=16, extra_levels=0))
    levels = [torch.linspace(0, 1, level[1]).expand(1, 16, *level).clone() for level in task._shapes((56, 56))]
    pooled = task.head._pool(levels, torch.tensor([[0.0, 28.0, 28.0, 55.0, 55.0]]), 7)
    assert float(pooled.mean()) == pytest.approx(41.5 / 3.5 / 15, abs=0.01)  # its middle, in places of the finest map
