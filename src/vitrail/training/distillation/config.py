"""The configuration of a teacher and of what it teaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError
from vitrail.core.types import as_channels, as_image_size

LessonName = Literal["logits", "hard", "correlation", "channels", "features", "tokens", "attention"]
Distance = Literal["whitened", "cosine", "mse"]


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """The teacher of a training, if it has one.

    Attributes:
        teacher: trained model that is imitated: a run folder, timm:NAME (with its public weights), a file of weights
            (with teacher_model), or an ONNX file of any framework. Default: no teacher.
        teacher_model: name of the model that a file of weights belongs to, such as vit_small_patch16 or timm:NAME.
            Default: the teacher is no bare file of weights.
        teacher_classes: names of the teacher's classes in the order of its outputs, where its file does not say them:
            a text file with one name a line, or the names, separated by commas; "same" for those of the data. Default:
            those that the teacher tells.
        teacher_image_size: pixels a side, or height and width, that a teacher by name or of a file of weights is built
            for. Default: those of its weights.
        teacher_output: name of the output that is imitated, where an ONNX file has several. Default: the only one.
        teacher_mean: numbers subtracted from the teacher's pixels (0 to 1), one or one a channel. Default: those that
            the teacher tells, else ImageNet's.
        teacher_std: numbers that the teacher's pixels are then divided by, one or one a channel. Default: as for
            teacher_mean.
        teacher_device: device of the teacher, such as cpu or cuda:1. Default: the device of the training.
        teach: what is imitated, one or several: logits (probabilities, boxes or heat maps), hard (the teacher's first
            class), correlation (how classes and images compare), channels (where each class is in the image), features
            (maps, level by level), tokens (the teacher's last map), attention (where the maps are strong). Default:
            logits where the outputs mean the same, else features.
        temperature: what logits are divided by before they are compared; above 1, improbable classes count more.
        feature_distance: how maps are compared: whitened (smooth distance after each place is normalised), cosine, or
            mse.
        cache_teacher: number of augmented views of each image whose answers are kept on the disk, so that a slow
            teacher looks once at each; epochs take the views in turn. 0 asks the teacher anew in each epoch.
    """

    teacher: str | None = None
    teacher_model: str | None = None
    teacher_classes: str | None = None
    teacher_image_size: int | tuple[int, int] | None = None
    teacher_output: str | None = None
    teacher_mean: tuple[float, ...] | None = None
    teacher_std: tuple[float, ...] | None = None
    teacher_device: str | None = None
    teach: tuple[LessonName, ...] = ()
    temperature: float = 2.0
    feature_distance: Distance = "whitened"
    cache_teacher: int = 0

    def __post_init__(self) -> None:
        convert_fields(self)
        if not 0 < self.temperature <= 100:
            raise ConfigError("is outside (0, 100]; 1 to 4 is usual", temperature=self.temperature)
        if self.cache_teacher < 0:
            raise ConfigError("is negative; 0 asks the teacher in each epoch", cache_teacher=self.cache_teacher)
        self._check_named("teacher_image_size", as_image_size)
        self._check_named("teacher_mean", partial(as_channels, "mean"))
        self._check_named("teacher_std", partial(as_channels, "std"))
        given = [
            name
            for name in ("teacher_model", "teacher_classes", "teacher_output", "teacher_image_size", "teach")
            if getattr(self, name)
        ]
        if self.teacher is None and given:
            raise ConfigError("needs a teacher; give --teacher, or leave it out", **{given[0]: getattr(self, given[0])})
        if len(set(self.teach)) < len(self.teach):
            raise ConfigError("names a lesson twice", teach=self.teach)

    def _check_named(self, name: str, check: Callable[[Any], Any]) -> None:
        """Let a check that knows another name tell this one."""
        value = getattr(self, name)
        try:
            if value is not None:
                check(value)
        except ConfigError as error:
            raise ConfigError(error.complaint, **{name: value}) from error
