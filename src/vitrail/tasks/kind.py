"""A row of the registry: what ties the parts of a task together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from vitrail.core.config import typed
from vitrail.core.errors import ConfigError
from vitrail.data import DataSplits
from vitrail.models import Backbone, create_model
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import Score, Task
from vitrail.tasks.spec import TaskSpec


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """A task without options of its own."""


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    r"""What is learnt, what people get, and the data of one task.

    Attributes:
        task: the module that is trained.
        build: what makes it of a backbone with :attr:`num_outputs` outputs, a spec, and the checked options.
        answers: the class of its answers.
        load_data: reader of its data: (config, \*, progress) to checked and split samples, or a DataError.
        options: frozen keyword-only dataclass of what only this task can be told (``--option.NAME`` in training).
        notes: name -> what ``run.json`` keeps of the data beside the classes, a list of plain values.
        later_notes: names of notes that runs of earlier versions lack.
        simplest: an answer that looks at no image, and its first score on the validation images of a training; None
            where trainings are not compared with one.
        num_outputs: outputs of the backbone's own classifier; 0 where the task brings a head of its own.
        make_backbone: what builds the model from a name and the arguments of :func:`vitrail.models.create_model`.
    """

    task: type[Task]
    build: Callable[[Any, TaskSpec, Any], Task]
    answers: type[Answers[Any, Any]]
    load_data: Callable[..., DataSplits[Any]]
    options: type[Any] = NoOptions
    notes: Mapping[str, Callable[[DataSplits[Any]], list[Any]]] = field(default_factory=dict)
    later_notes: frozenset[str] = frozenset()
    simplest: tuple[str, Callable[[DataSplits[Any]], float]] | None = None
    num_outputs: Callable[[TaskSpec], int] = lambda _: 0
    make_backbone: Callable[..., Backbone] = create_model

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def scores(self) -> tuple[Score, ...]:
        return self.task.scores

    def score(self, name: str | None = None) -> Score:
        """The score of a name, or the one that decides where none is named.

        Raises:
            ConfigError: the task has no such score.
        """
        known = {score.name: score for score in self.scores}
        if name is not None and name not in known:
            raise ConfigError(f"task {self.name} has the scores {', '.join(known)}", keep_score=name)
        return self.scores[0] if name is None else known[name]

    @property
    def facts(self) -> tuple[str, ...]:
        """Names of the entries of :meth:`describe_data` beside ``classes``."""
        return tuple(self.notes)

    def describe_data(self, data: DataSplits[Any]) -> dict[str, Any]:
        """Entries of ``run.json``, plain values, that rebuild the task without its data."""
        return {"classes": list(data.classes)} | {name: note(data) for name, note in self.notes.items()}

    def read_options(self, given: Mapping[str, Any]) -> Any:
        """:attr:`options`, checked.

        Raises:
            ConfigError: an option that the task does not have, or a value that is not allowed.
        """
        given = {name.replace("-", "_"): value for name, value in given.items()}  # as options are written on the line
        known = [field.name for field in fields(self.options)]
        if unknown := [name for name in given if name not in known]:
            raise ConfigError(f"task '{self.name}' has no option '{unknown[0]}'; it has {', '.join(known) or 'none'}")
        try:
            return typed(self.options, given)
        except ConfigError as error:
            named = {f"options.{name}": value for name, value in error.values.items()}
            raise ConfigError(error.complaint, **named) from error

    def create(self, backbone: Backbone, spec: TaskSpec) -> Task:
        """The task around its backbone, freshly initialised.

        Raises:
            ConfigError: the options do not fit, or the backbone's ``feature_info`` lacks what the task needs.
        """
        return self.build(backbone, spec, self.read_options(spec.options))
