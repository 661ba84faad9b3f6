"""Low-rank adapters of linear layers: few numbers are trained, and the result is a plain model.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vitrail.core.errors import ConfigError
from vitrail.tasks import Task
from vitrail.training.config import TrainConfig

ORIGINAL = ".parametrizations.weight.original"
ADAPTER = ".parametrizations.weight.0."


class Adapter(nn.Module):
    """A weight (out, in) plus ``scale`` times the product of (out, rank) and (rank, in); zero at first.

    It stands in a layer as PyTorch's parametrisation of its weight, so that it works wherever the weight is used.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.up @ self.down)


def add_adapters(task: Task, config: TrainConfig) -> None:
    """Give the linear layers of a task's backbone adapters of ``config.lora``; nothing where that is 0.

    Raises:
        ConfigError: the backbone has no such layers, or the rank is too large for one of them.
    """
    if not config.lora:
        return
    layers = dict(_linears(task, config))
    if not layers:
        told = f"{config.model} has no linear layers of this kind, which adapters need; use freeze in its place"
        raise ConfigError(told, lora=config.lora, lora_layers=config.lora_layers)
    limit, name = min((min(layer.weight.shape), name) for name, layer in layers.items())
    if config.lora > limit:
        raise ConfigError(f"is above {limit}, the smaller side of {config.model}'s layer {name}", lora=config.lora)
    for layer in layers.values():
        adapter = Adapter(layer.weight.detach(), config.lora, config.lora_alpha / config.lora)
        parametrize.register_parametrization(layer, "weight", adapter)


def _linears(task: Task, config: TrainConfig) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers that get adapters: those in an ``mlp``, all others before the head, or both."""
    if task.adversarial:
        return
    backbone = task.backbone
    inner = tuple(prefix for group in backbone.layer_groups() for prefix in group)
    for name, module in backbone.named_modules():
        inside = f"{name}.".startswith(inner) and not f"{name}.".startswith(backbone.head_prefixes)
        kind = "mlp" if "mlp" in name.split(".") else "attention"
        if isinstance(module, nn.Linear) and inside and config.lora_layers in ("all", kind):
            yield name, module


def adapter_size(task: nn.Module) -> int:
    """Number of parameters that a task has beside those of the plain model."""
    adapters = (module for module in task.modules() if isinstance(module, Adapter))
    return sum(one.numel() for adapter in adapters for one in adapter.parameters())


def merged(state: Mapping[str, Tensor], config: TrainConfig) -> dict[str, Tensor]:
    """The state dict of the plain model: each adapter added to its weight."""
    plain = {name: value for name, value in state.items() if ADAPTER not in name and not name.endswith(ORIGINAL)}
    for name, weight in state.items():
        if name.endswith(ORIGINAL):
            layer = name.removesuffix(ORIGINAL)
            up, down = (state[f"{layer}{ADAPTER}{part}"] for part in ("up", "down"))
            with torch.no_grad():
                plain[f"{layer}.weight"] = weight + config.lora_alpha / config.lora * (up @ down)
    return plain
