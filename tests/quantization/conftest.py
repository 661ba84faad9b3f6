"""Small models of both families, with weights that spread activations as trained ones do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vitrail.models import create_model


def excite(model: nn.Module) -> nn.Module:
    """Fresh weights are so small that all activations are nearly constant; these keep their size."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            parameter.data = torch.randn(parameter.shape, generator=generator) * fan_in**-0.5
    return model.eval()


@pytest.fixture(scope="session")
def excited() -> Callable[[nn.Module], nn.Module]:
    return excite


@pytest.fixture(scope="session")
def vit() -> nn.Module:
    return excite(create_model("vit_nano_patch4", num_classes=10, depth=2, embed_dim=32, num_heads=2, image_size=16))


@pytest.fixture(scope="session")
def edgevit() -> nn.Module:
    return excite(
        create_model(
            "edgevit_nano_stride2",
            num_classes=10,
            image_size=16,
            embed_dims=(24, 48),
            depths=(1, 1),
            sr_ratios=(2, 1),
            strides=(2, 2),
        )
    )


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(1))
