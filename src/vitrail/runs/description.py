"""The contents of ``run.json``, typed and versioned."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vitrail.core.checked import checked
from vitrail.core.errors import RunError
from vitrail.core.types import ImageSize, Preprocessing
from vitrail.tasks import TASKS, TaskKind
from vitrail.training import TrainConfig

VERSION = 1
"""Version of the layout of ``run.json``; files of 0.1.0 have no such entry and the same layout."""


class _Entry(BaseModel):
    """An entry of ``run.json``; fields of later versions stay in the file and are not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ModelEntry(_Entry):
    """The backbone of the run.

    Attributes:
        name: name that ``vitrail models`` lists.
        fields: keyword arguments of :func:`vitrail.create_model`.
        num_params: number of parameters of the whole task; None in files without it.
    """

    name: str
    fields: dict[str, Any]
    num_params: int | None = None


class DataEntry(_Entry):
    """The images that the run was trained with.

    Attributes:
        path: path as the user gave it.
        fingerprint: SHA-256 over names, targets and contents of all images.
        num_train, num_val, num_test: number of images of each part.
        skipped: "path: reason" of every image that was left out.
        remarks: sentences on what was decided about the data.
    """

    path: str = ""
    fingerprint: str = ""
    num_train: int = 0
    num_val: int = 0
    num_test: int = 0
    skipped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class TrainedEntry(BaseModel):
    """The epoch whose weights became the model, with its metrics.

    Attributes:
        keep: "best" or "last"; "probe" where only a linear probe was fitted, in no epochs.
        epoch: number of that epoch, from 1.
        num_epochs: number of epochs that were trained.
        seconds: duration of all of them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    keep: str = ""
    epoch: int | None = None
    num_epochs: int = 0
    seconds: float = 0.0


class ConfidenceEntry(_Entry):
    """The least probability of an object in answers, where the run's task has such a bound.

    Attributes:
        min_confidence: the one with the best F1 on the validation images.
        f1: F1 of all their objects together at that probability.
        num_images: number of these images.
        weights_hash: hash of the weights that found them.
    """

    min_confidence: Annotated[float, Field(gt=0, lt=1)]
    f1: float = 0.0
    num_images: int = 0
    weights_hash: str = ""


RENAMED_OPTIONS = {"opponent_width": "discriminator_width"}
"""Option of a task in version 0.1.0 -> its name now."""


def _train_config(values: Any) -> Any:
    """Leave out the fields of later versions, and rename the options of earlier ones."""
    if not isinstance(values, dict):
        return values
    known = {field.name for field in fields(TrainConfig)}
    kept = {name: value for name, value in values.items() if name in known}
    if isinstance(given := values.get("options"), dict):
        kept["options"] = {RENAMED_OPTIONS.get(name, name): value for name, value in given.items()}
    return kept


class Description(BaseModel):
    """The contents of ``run.json``.

    Other entries belong to the task (the scale of scores, the skeleton of a pose) or to a later version; they are kept.

    Attributes:
        version: version of the layout.
        task: name of the task.
        model: name and arguments of the backbone.
        classes: names of the classes, in the order of the labels.
        preprocessing: conversion of an image to the input of the model.
        weights_remarks: sentences on what was decided when weights were loaded, and on the origin of the preprocessing.
        input_shape: shape (c, h, w) of the input if it is not an image.
        data: the images that the run was trained with.
        training: configuration of the training.
        precision: Lightning's name of the precision that "auto" stood for.
        seed: seed of the training.
        versions: package -> version that trained the run.
        command: command line that made the run.
        status: "training" until the last epoch is done, then "trained".
        trained: the epoch whose weights were kept; None before the last epoch is done.
        confidence: least probability of an object in answers; None until it is found.
        stages: stage of the whole way -> seconds that it took.
        quantized: configuration of the quantisation, for runs that a comparison quantised.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    version: int = VERSION
    task: str
    model: ModelEntry
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing = Preprocessing()
    weights_remarks: tuple[str, ...] = ()
    input_shape: tuple[int, int, int] | None = None
    data: DataEntry = DataEntry()
    training: Annotated[TrainConfig, BeforeValidator(_train_config)] = Field(default_factory=TrainConfig)
    precision: str = ""
    seed: int | None = None
    versions: dict[str, str] = {}
    command: str = ""
    status: str = ""
    trained: TrainedEntry | None = None
    confidence: ConfidenceEntry | None = None
    stages: dict[str, float] = {}
    quantized: dict[str, Any] = {}

    @classmethod
    def read(cls, values: Any, source: str = "run.json") -> Self:
        """A description from the plain values of JSON.

        Args:
            values: contents of the file.
            source: name of the file for messages.

        Raises:
            RunError: an entry is missing or of the wrong kind; the message names it.
        """
        if not isinstance(values, dict) or "model" not in values:
            raise RunError(f"{source} does not describe a run (no 'model' in it)")
        return checked(cls, values, source, "train the run again, or restore the file")

    @property
    def kind(self) -> TaskKind:
        """The task.

        Raises:
            RunError: this version has no such task.
        """
        if self.task not in TASKS:
            raise RunError(
                f"the run has the unknown task '{self.task}'; known: {', '.join(TASKS)}; "
                f"was it made by a later Vitrail?"
            )
        return TASKS[self.task]

    @property
    def facts(self) -> dict[str, Any]:
        """The classes, and the entries of the task on its data.

        Raises:
            RunError: this version has no such task, or an entry of the task is missing.
        """
        noted = {"classes": self.classes} | (self.model_extra or {})
        wanted = [name for name in ("classes", *self.kind.facts) if name in noted or name not in self.kind.later_notes]
        for name in wanted:
            if name not in self.model_fields_set or not isinstance(noted.get(name), list | tuple):
                raise RunError(f"run.json is incomplete: '{name}' is missing; train the run again, or restore the file")
        return {name: noted[name] for name in wanted}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one input of the model; for nearly all tasks an image."""
        height, width = self.image_size
        return self.input_shape or (3, height, width)

    @property
    def image_size(self) -> ImageSize:
        """Height and width of the images in pixels."""
        return self.preprocessing.image_size
