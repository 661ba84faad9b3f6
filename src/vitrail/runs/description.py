"""The contents of ``run.json``, typed and versioned."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vitrail.core.checked import checked
from vitrail.core.errors import RunError, UnknownNameError
from vitrail.core.types import ImageSize, Preprocessing
from vitrail.data import CHOSEN_AUGMENT
from vitrail.runs.remembered_code import CodeEntry, require_code
from vitrail.tasks import TaskKind, find_task
from vitrail.training import ResolvedConfig
from vitrail.training.config import CHOSEN

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
        keep: "best" or "last"; "probe" where the linear probe before the first epoch was kept.
        epoch: number of that epoch, from 1; 0 for the probe.
        best_score: the task's first score (top-1, mAP) of the best epoch on the validation images.
        num_epochs: number of epochs that were trained.
        seconds: duration of all of them.
        stopped: why training ended before its last epoch; "" if it did not.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    keep: str = ""
    epoch: int | None = None
    best_score: float | None = None
    num_epochs: int = 0
    seconds: float = 0.0
    stopped: str = ""


class ConfidenceEntry(_Entry):
    """The least probability of an object or a class in answers, where the run's task has such a bound.

    Attributes:
        min_confidence: the one with the best F1 on the validation images.
        by_class: the one of each class, where a task has one for each; empty where it has not.
        f1: F1 of all their objects, or labels, together.
        num_images: number of these images.
        weights_hash: hash of the weights that found them.
    """

    min_confidence: Annotated[float, Field(gt=0, lt=1)]
    by_class: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    f1: float = 0.0
    num_images: int = 0
    weights_hash: str = ""


class TemperatureEntry(_Entry):
    """What the logits of a classifier are divided by, where its user wants that.

    Attributes:
        value: the temperature under which the labels of the validation images are most probable.
        num_images: number of these images.
        weights_hash: hash of the weights that it was fitted for.
    """

    value: Annotated[float, Field(gt=0, lt=1e6)]
    num_images: int = 0
    weights_hash: str = ""


class RecipeEntry(_Entry):
    """The recipe of a training.

    Attributes:
        name: "scratch", "finetune" or "probe".
        why: reason of the recipe, as a clause.
        reasons: field of the configuration -> reason of its value, for what the recipe chose.
        majority: the task's first score on the validation images of an answer that looks at no image, such as always
            the most frequent class.
        probe: the same of the linear probe that the training started from.
        probe_scores: scores of that probe on the validation images, by name; empty in runs of earlier versions.
    """

    name: str = ""
    why: str = ""
    reasons: dict[str, str] = {}
    majority: float | None = None
    probe: float | None = None
    probe_scores: dict[str, float] = {}

    @property
    def known_probe_scores(self) -> dict[str, float]:
        """Scores of the probe; none where the training started from no probe."""
        return {} if self.probe is None else self.probe_scores or {"top1": self.probe}


class TeacherEntry(_Entry):
    """The teacher of a training.

    Attributes:
        title: what it is, for people.
        fingerprint: hash of its weights.
        num_params: number of its parameters; 0 where that is unknown.
        lessons: names of what it teaches.
        weights: lesson -> number that it was multiplied by; empty until the training is done.
    """

    title: str = ""
    fingerprint: str = ""
    num_params: int = 0
    lessons: tuple[str, ...] = ()
    weights: dict[str, float] = {}


RENAMED_OPTIONS = {"opponent_width": "discriminator_width"}
"""Option of a task in version 0.1.0 -> its name now."""


def _train_config(values: Any) -> Any:
    """Leave out the fields of later versions and what is left open, and rename the options of earlier ones."""
    if not isinstance(values, dict):
        return values
    known = {field.name for field in fields(ResolvedConfig)}
    kept = {name: value for name, value in values.items() if name in known}
    kept = {name: value for name, value in kept.items() if value is not None or name not in (*CHOSEN, "model")}
    if isinstance(augment := kept.get("augment"), dict):
        kept["augment"] = {name: one for name, one in augment.items() if one is not None or name not in CHOSEN_AUGMENT}
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
        training: configuration of the training, every choice made.
        recipe: the recipe that made the choices; None in files of earlier versions.
        teacher: the teacher of the training; None without one.
        precision: Lightning's name of the precision that "auto" stood for.
        seed: seed of the training.
        versions: package -> version that trained the run.
        command: command line that made the run.
        status: "training" until the last epoch is done, then "trained".
        trained: the epoch whose weights were kept; None before the last epoch is done.
        confidence: least probability of what answers name; None until it is found.
        temperature: what logits are divided by; None where they stay as they are.
        stages: stage of the whole way -> seconds that it took.
        quantized: configuration of the quantisation, for runs that a comparison quantised.
        own_code: what of its user's own code the run needs; it is never imported because it is named here.
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
    training: Annotated[ResolvedConfig, BeforeValidator(_train_config)] = Field(default_factory=ResolvedConfig)
    recipe: RecipeEntry | None = None
    teacher: TeacherEntry | None = None
    precision: str = ""
    seed: int | None = None
    versions: dict[str, str] = {}
    command: str = ""
    status: str = ""
    trained: TrainedEntry | None = None
    confidence: ConfidenceEntry | None = None
    temperature: TemperatureEntry | None = None
    stages: dict[str, float] = {}
    quantized: dict[str, Any] = {}
    own_code: tuple[CodeEntry, ...] = ()

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
            RunError: this version has no such task, or it is one of own code that is not imported.
        """
        require_code([entry for entry in self.own_code if entry.kind == "task"])
        try:
            return find_task(self.task)
        except UnknownNameError as error:
            raise RunError(f"the run has the {error}; was it made by a later Vitrail?") from error

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
