"""What AdamW may decay, how fast each layer learns, and the learning rate of every step."""

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

    Matrices and kernels are decayed; vectors (biases, norms) and what ``backbone.no_weight_decay()`` names are not.
    With ``layer_decay`` d, a parameter of the i-th of n+1 layer groups learns at ``learning_rate * d ** (n - i)``, so
    that the classifier learns at the full rate and the stem slowest (Clark et al., ELECTRA, ICLR 2020; Bao et al.,
    BEiT, ICLR 2022).

    Args:
        task: the backbone and all that is trained with it.
        backbone: the part of ``task`` that knows its layers.
        learning_rate, weight_decay: AdamW's.
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


def learning_rate_factor(step: int, *, num_steps: int, num_warmup_steps: int) -> float:
    """What the learning rate is multiplied by at a step: linear warm-up, then half a cosine down to 0.

    The first step has ``1 / (num_warmup_steps + 1)`` and the last is just above 0, so that no step is wasted.
    """
    if step < num_warmup_steps:
        return (step + 1) / (num_warmup_steps + 1)
    progress = (step - num_warmup_steps) / max(num_steps - num_warmup_steps, 1)
    return (1 + math.cos(math.pi * min(progress, 1.0))) / 2
