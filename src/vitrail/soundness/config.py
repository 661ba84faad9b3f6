"""What is checked, and with which model."""

from __future__ import annotations

from dataclasses import dataclass

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.tasks.create import find_task


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """The configuration of a check.

    Attributes:
        task: Task that the folder is read for. Default: the one that its layout shows.
        model: Name of the model whose features compare images, for `--weights`. Default: that of a run, else
            vit_tiny_patch16.
        weights: Weights of that model: a file, a run, an https URL, hf://owner/repository/file, or "pretrained".
            Default: none, so that images are compared by their pixels alone.
        image_size: Pixels a side of the images that the model sees. Default: the model's own size.
        mean: Numbers subtracted from the pixels (0 to 1), one or one a channel. Default: the model's own.
        std: Numbers that the pixels are then divided by, one or one a channel. Default: the model's own.
        batch_size: Number of images that the model sees at once; changes speed, never the result.
        strict: Exit with status 2 where something serious is found, after everything is written.
        seed: Random seed of the folds by which labels are judged.
    """

    task: str | None = None
    model: str | None = None
    weights: str | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    batch_size: int = 64
    strict: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        convert_fields(self)
        if self.task is not None:
            find_task(self.task)
        for name in ("batch_size", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError("is below 1", **{name: value})
        Preprocessing().changed(mean=self.mean, std=self.std)
