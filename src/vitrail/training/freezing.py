"""The part of a task that is not trained: no gradient, no weight decay, no new statistics, no dropout."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vitrail.core.errors import ConfigError
from vitrail.models import Backbone
from vitrail.tasks import Task
from vitrail.training.config import ResolvedConfig, TrainConfig
from vitrail.training.lora import Adapter


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

    def hold(self, frozen: bool = True, *, gradients: bool = False) -> None:
        """Freeze the part, or release it; the rest of the task must be in training mode.

        Args:
            frozen: whether it is frozen from now on.
            gradients: let gradients be computed nevertheless, for whoever drops them.
        """
        for parameter in self.parameters:
            parameter.requires_grad_(gradients or not frozen)
        for module in self.modules:
            module.training = not frozen

    def drop_gradients(self) -> None:
        """Forget the gradients of the part, so that an optimiser passes over it."""
        for parameter in self.parameters:
            parameter.grad = None


def frozen_part(task: Task, config: ResolvedConfig) -> FrozenPart:
    """The part of a task that ``config.freeze`` names, or the backbone where only ``freeze_epochs`` is given.

    Raises:
        ConfigError: the model has no such part, it is released too late, or the task is trained against another model.
    """
    what = config.freeze
    if what is None and (config.freeze_epochs or config.lora):
        what = "backbone"
    if what is None:
        return FrozenPart()
    if task.adversarial:
        raise ConfigError(f"task {task.name} trains two models in turn and freezes no part; leave out freeze={what!r}")
    if config.freeze_epochs >= config.epochs:
        raise ConfigError(
            f"must be below epochs={config.epochs}; 0 freezes to the end", freeze_epochs=config.freeze_epochs
        )
    backbone = task.backbone
    taken = tuple(_prefixes(backbone, what, config.model))
    spared = (*backbone.head_prefixes, "head_drop.")

    def inside(name: str) -> bool:
        """Whether a name of a module or a parameter belongs to the part."""
        return f"{name}.".startswith(taken) and not f"{name}.".startswith(spared)

    adapters = {one for module in backbone.modules() if isinstance(module, Adapter) for one in module.parameters()}
    return FrozenPart(
        tuple(one for name, one in backbone.named_parameters() if inside(name) and one not in adapters),
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
    given = [
        *([f"--freeze {config.freeze}"] if config.freeze is not None else []),
        *([f"--freeze-epochs {config.freeze_epochs:g}"] if config.freeze_epochs else []),
        *([f"--lora {config.lora}"] if config.lora else []),
    ]
    if not given or config.weights is not None:
        return ()
    return (f"Warning: {given[0]} freezes random weights; give --weights, or leave it out",)
