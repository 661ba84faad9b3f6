"""Parameters, multiply-accumulates and activations of a model, counted.

Counting every variant takes a quarter of a minute, so that the counts are kept in a table beside this file, which a
test compares with fresh ones; ``python -m vitrail.models.complexity`` renews it.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vitrail.core.files import read_json, write_json
from vitrail.core.types import ImageSize, as_image_size
from vitrail.models.registry import create_model, list_models

COUNTED = Path(__file__).with_name("complexity.json")
"""Variant -> its counts at its native image size."""


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Counts for one image.

    Attributes:
        params: elements of all parameters (buffers are not counted).
        macs: multiply-accumulate operations of matrix products and convolutions, those of attention included.
        activations: elements that convolutions and linear layers output, an estimate of memory traffic (Radosavovic et
            al. 2020, Designing Network Design Spaces).
    """

    params: int
    macs: int
    activations: int

    def to_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


def complexity(model: nn.Module, image_size: int | ImageSize, in_chans: int = 3) -> Complexity:
    """Count for one image of ``image_size`` pixels; on the meta device this allocates no memory."""
    first = next(model.parameters())
    images = torch.zeros(1, in_chans, *as_image_size(image_size), device=first.device, dtype=first.dtype)
    outputs: list[int] = []

    def note(module: nn.Module, args: Any, output: Tensor) -> None:  # noqa: ARG001 (the signature of a hook)
        outputs.append(output.numel())

    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, layers)]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    counter = FlopCounterMode(display=False)
    try:
        # Fused attention kernels hide their matrix products from the counter on some devices.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    params = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(params=params, macs=counter.get_total_flops() // 2, activations=sum(outputs))


def variant_complexity(name: str) -> Complexity:
    """The counts of a variant at its native image size: from the table, or counted where the table lacks it."""
    known = _table().get(name)
    return count_variant(name) if known is None else Complexity(**known)


def count_variant(name: str) -> Complexity:
    """Count a variant at its native image size, without memory for its weights."""
    with torch.device("meta"):
        model = create_model(name)
    return complexity(model, model.config.image_size)


@functools.cache
def _table() -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = read_json(COUNTED)
    return table


if __name__ == "__main__":
    write_json(COUNTED, {name: count_variant(name).to_dict() for name in list_models()})
