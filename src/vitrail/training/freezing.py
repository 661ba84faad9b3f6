"""The part of a task that is not trained: no gradient, no weight decay, no new statistics, no dropout."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vitrail.core.errors import ConfigError
from vitrail.models import Backbone
from vitrail.tasks import Task
from vitrail.training.config import TrainConfig


@dataclass(frozen=True, eq=False)
class FrozenPart:
    """Parameters that stay as they are, and the modules around them, which run as in evaluation.

    Attributes:
        parameters: what is not trained.
        modules: what stays in evaluation mode: BatchNorms use their running statistics and keep them, dropout and drop
            path are off.
    """

    parameters: tuple[nn.Parameter, ...] = ()
    modules: tuple[nn.Module, ...] = ()

    def hold(self, frozen: bool = True) -> None:
        """Freeze the part, or release it; the rest of the task must be in training mode."""
        for parameter in self.parameters:
            parameter.requires_grad_(not frozen)
        for module in self.modules:
            module.training = not frozen


def frozen_part(task: Task, config: TrainConfig) -> FrozenPart:
    """The part of a task that ``config.freeze`` names.

    Raises:
        ConfigError: the model has no such part, or the task is trained against another model.
    """
    if config.freeze is None:
        return FrozenPart()
    if task.adversarial:
        raise ConfigError(f"task {task.name} trains two models in turn and freezes no part", freeze=config.freeze)
    backbone = task.backbone
    taken = tuple(_prefixes(backbone, config.freeze, config.model))
    spared = (*backbone.head_prefixes, "head_drop.")

    def inside(name: str) -> bool:
        """Whether a name of a module or a parameter belongs to the part."""
        return f"{name}.".startswith(taken) and not f"{name}.".startswith(spared)

    return FrozenPart(
        tuple(parameter for name, parameter in backbone.named_parameters() if inside(name)),
        tuple(module for name, module in backbone.named_modules() if name and inside(name)),
    )


def _prefixes(backbone: Backbone, freeze: int | str, model: str) -> list[str]:
    """Prefixes of the names in the part; the empty one stands for everything.

    Raises:
        ConfigError: the model has no such part.
    """
    groups = backbone.layer_groups()
    if freeze == "backbone":
        return [""]
    if freeze == "stem":
        if "stem." not in groups[0]:
            raise ConfigError(f"{model} has no stem; freeze=1 freezes its first layer group", freeze=freeze)
        freeze = 1
    count = int(freeze)
    if count > len(groups):
        raise ConfigError(
            f"{model} has {len(groups)} layer groups; give 1 to {len(groups)}, or backbone for all of the backbone",
            freeze=freeze,
        )
    return [prefix for group in groups[:count] for prefix in group]


def freezing_remarks(config: TrainConfig) -> tuple[str, ...]:
    """Sentences for whoever freezes what has not learnt anything yet."""
    if config.freeze is None or config.weights is not None:
        return ()
    return (f"Warning: --freeze {config.freeze} freezes random weights; give --weights, or leave it out",)
