"""What a model must be so that it can be quantised and exported, told in one line before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.core.errors import VitrailError
from vitrail.quantization.graph.capture import evaluating


class OneOutput(nn.Module):
    """A model that returns several values, as one that returns one of them.

    Attributes:
        model: the model, such as ``ViTForImageClassification`` of transformers.
        key: name or index of the tensor in what it returns, such as "logits".
    """

    def __init__(self, model: nn.Module, key: str | int = "logits") -> None:
        super().__init__()
        self.model = model
        self.key = key

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) to one tensor of the model's output."""
        result: Tensor = self.model(images)[self.key]
        return result


def check_usable(model: nn.Module, images: Tensor, error: type[VitrailError]) -> Tensor | None:
    """Refuse a model that is not float32 or does not return one tensor.

    Args:
        model: a module from images (b, c, h, w) to its output.
        images: normalised (n, c, h, w); the first two are run.
        error: class of the error to raise, e.g. ``ExportError``.

    Returns:
        the output for the first two images; None if the model does not run, for which whoever captures it has a reason.

    Raises:
        error: the images or the parameters are not float32, or the output is not one tensor.
    """
    name = type(model).__name__
    if images.dtype != torch.float32:
        raise error(f"the images are {_dtype(images)}; pass normalised float32 images (n, c, h, w)")
    others = {_dtype(p) for p in model.parameters() if p.is_floating_point() and p.dtype != torch.float32}
    if others:
        raise error(f"{name} has {', '.join(sorted(others))} parameters; pass it in float32: model.float()")
    try:
        with evaluating(model):
            output: Any = model(images[:2])
    except VitrailError:
        raise
    except Exception:  # noqa: BLE001 (a model may raise anything, and raises it again when it is captured)
        return None
    if isinstance(output, Tensor):
        return output
    raise error(
        f"{name} returns {_article(type(output).__name__)}, and one tensor is needed; wrap it: "
        f"vitrail.quantization.OneOutput(model, {_key(output)!r})"
    )


def _key(output: Any) -> str | int:
    """Where the logits are in an output, or its first tensor if none is called so."""
    if not isinstance(output, Mapping):
        values = list(output) if isinstance(output, tuple | list) else []
        return next((index for index, value in enumerate(values) if isinstance(value, Tensor)), 0)
    names = [str(name) for name, value in output.items() if isinstance(value, Tensor)]
    return next((name for name in ("logits", "out") if name in names), names[0] if names else "logits")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'AEIOUaeiou' else 'a'} {word}"
