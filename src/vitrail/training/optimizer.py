"""Parameter groups of AdamW and the schedule of the learning rate."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch import nn

from vitrail.models import Backbone


def parameter_groups(
    task: nn.Module, backbone: Backbone, *, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Optimiser groups of all trainable parameters of a task.

    Matrices and kernels have weight decay; vectors (biases, norms) and the names in ``backbone.no_weight_decay()`` have
    none. With ``layer_decay`` d, the i-th of n+1 layer groups has the learning rate ``learning_rate * d ** (n - i)``:
    the classifier has the full rate, the stem the lowest (Clark et al., ELECTRA, ICLR 2020; Bao et al.,
    BEiT, ICLR 2022).

    Args:
        task: module with all trained parameters.
        backbone: part of ``task`` that defines the layer groups.
        learning_rate, weight_decay: learning rate and weight decay of AdamW.
        layer_decay: factor from one layer group to the one before it; 1 turns it off.

    Returns:
        groups with ``params``, ``lr`` and ``weight_decay``, in the order of the parameters.
    """
    inner = {id(parameter): name for name, parameter in backbone.named_parameters()}
    kept, layers = backbone.no_weight_decay(), backbone.layer_groups()
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for parameter in task.parameters():
        if not parameter.requires_grad:
            continue
        name = inner.get(id(parameter))
        depth = len(layers) if name is None else _layer_of(name, layers)
        decay = 0.0 if parameter.ndim < 2 or name in kept else weight_decay
        groups[learning_rate * layer_decay ** (len(layers) - depth), decay].append(parameter)
    return [{"params": found, "lr": rate, "weight_decay": decay} for (rate, decay), found in groups.items()]


def _layer_of(name: str, layers: Sequence[tuple[str, ...]]) -> int:
    return next((i for i, prefixes in enumerate(layers) if name.startswith(prefixes)), len(layers))


def learning_rate_factor(step: float, *, num_steps: int, num_warmup_steps: int) -> float:
    """Factor of the learning rate at a step: linear warm-up, then half a cosine down to 0.

    The factor is ``1 / (num_warmup_steps + 1)`` at the first step and just above 0 at the last, never 0.
    """
    if step < num_warmup_steps:
        return (step + 1) / (num_warmup_steps + 1)
    progress = (step - num_warmup_steps) / max(num_steps - num_warmup_steps, 1)
    return (1 + math.cos(math.pi * min(progress, 1.0))) / 2
