"""What checks of the contract have in common: how a model is made, and how a broken promise is told."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitrail.core.errors import VitrailError
from vitrail.models import Backbone

Make = Callable[..., Backbone]
"""Makes a new model; keywords are those of :func:`vitrail.create_model`, without its name."""

NUM_CLASSES = 10
"""Classes of the models that compute."""


class BrokenPromiseError(VitrailError):
    """A model does not do what its interface says."""


class NotApplicableError(Exception):
    """A check says nothing about this model."""


def promised(kept: bool, told: str) -> None:
    """
    Raises:
        BrokenPromiseError: it is not kept.
    """
    if not kept:
        raise BrokenPromiseError(told)


def meta_model(make: Make, **fields: object) -> Backbone:
    """A model on the meta device: shapes without memory."""
    with torch.device("meta"):
        return make(**fields).eval()


def images_for(model: Backbone, batch: int = 2) -> Tensor:
    """Random images of the size and on the device of a model."""
    device = next(model.parameters()).device
    return torch.randn(batch, model.config.in_chans, *model.config.image_size, device=device)


def lively_model(make: Make, **fields: object) -> Backbone:
    """A model in evaluation mode; with the initial weights of some papers hardly anything reaches the logits."""
    torch.manual_seed(0)
    model = make(**({"num_classes": NUM_CLASSES} | fields))
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.requires_grad:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.eval()


def shape_text(x: object) -> str:
    """``2x3x48x48``, or what it is instead of a tensor."""
    return "x".join(map(str, x.shape)) if isinstance(x, Tensor) else f"a {type(x).__name__}"


def need_shape(what: str, x: object, shape: tuple[int, ...]) -> None:
    """
    Raises:
        BrokenPromiseError: ``x`` has another shape.
    """
    wanted = "x".join(map(str, shape))
    promised(isinstance(x, Tensor) and tuple(x.shape) == shape, f"{what} is {shape_text(x)}, not {wanted}")


def need_close(what: str, x: Tensor, y: Tensor, relative: float, absolute: float) -> None:
    """
    Raises:
        BrokenPromiseError: two tensors differ by more than rounding.
    """
    promised(x.shape == y.shape, f"{what}: {shape_text(x)} against {shape_text(y)}")
    error = float((x - y).abs().max())
    close = torch.allclose(x, y, rtol=relative, atol=absolute)
    promised(close, f"{what}: outputs differ by up to {error:.2g} of {float(y.abs().max()):.2g}")
