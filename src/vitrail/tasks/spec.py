"""What builds a task without its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from vitrail.core.types import Preprocessing
from vitrail.models import Backbone

OpenBackbone = Callable[[str], tuple[Backbone, Preprocessing]]
"""Folder of a run -> its backbone without a classifier, and what that expects of an image."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What builds a task, around a backbone and without its data.

    Attributes:
        classes: names, in the order of the labels; empty where there are none.
        facts: what else the task noted of its data, see :meth:`vitrail.tasks.TaskKind.describe_data`.
        options: what only this task can be told, as it was given.
        label_smoothing: share of a label that is spread over all classes in training.
        open_backbone: opens the backbone of a run folder, for tasks that measure with another model's features; None
            where there are no run folders.
    """

    classes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    label_smoothing: float = 0.0
    open_backbone: OpenBackbone | None = None

    @classmethod
    def of(
        cls,
        described: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.0,
        open_backbone: OpenBackbone | None = None,
    ) -> Self:
        """From the entries of :meth:`vitrail.tasks.TaskKind.describe_data`."""
        facts = {name: value for name, value in described.items() if name != "classes"}
        return cls(
            classes=tuple(str(name) for name in described["classes"]),
            facts=facts,
            options=options or {},
            label_smoothing=label_smoothing,
            open_backbone=open_backbone,
        )
