"""Evaluation of a run or of a weights file on images that belong to no run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError
from vitrail.core.types import Interpolation, Preprocessing, as_image_size
from vitrail.data import DataConfig, DataSplits
from vitrail.evaluation import GROUPS, evaluate_task
from vitrail.evaluation.robustness.config import Group
from vitrail.models import create_model
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task
from vitrail.runs.run import Run
from vitrail.tasks import DEFAULT_TASK, Task, TaskKind, TaskSpec, find_task


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The configuration of an evaluation.

    Attributes:
        model: Name of a model, to evaluate a weights file without a run. Default: the run.
        weights: Weights without a run: a file, an https URL, hf://owner/repository/file, or "pretrained" (or
            "pretrained:TAG"). Default: the run.
        data: Folder of images, or "sample". Default: the held-out images of the run.
        image_size: Pixels a side, or height and width. Default: the model's own size.
        mean: Numbers subtracted from the pixels (0 to 1), one or one a channel. Default: the model's own.
        std: Numbers that the pixels are then divided by, one or one a channel. Default: the model's own.
        crop_fraction: Share of the shorter side that is kept. Default: the model's own share.
        interpolation: Method that resizes images. Default: the model's own.
        batch_size: Number of images at once; changes speed, never the result.
        max_bad_fraction: Share of the images that may be undecodable; they are listed and skipped.
        robustness: Measure the accuracy under shifts, rotations, changes of scale, corruptions and other resolutions,
            of one run or of several side by side.
        groups: Kinds of change that the robustness is measured under.
        num_images: Largest number of images for robustness.
        robustness_seed: Random seed of the noise and of the choice of images.
    """

    model: str | None = None
    weights: str | None = None
    data: str | None = None
    image_size: int | tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_fraction: float | None = None
    interpolation: Interpolation | None = None
    batch_size: int = 64
    max_bad_fraction: float = 0.01
    robustness: bool = False
    groups: tuple[Group, ...] = GROUPS
    num_images: int = 1000
    robustness_seed: int = 0

    def __post_init__(self) -> None:
        convert_fields(self)
        for name in ("batch_size", "num_images"):
            if getattr(self, name) < 1:
                raise ConfigError("is below 1", **{name: getattr(self, name)})
        if self.image_size is not None:
            as_image_size(self.image_size)
        if self.crop_fraction is not None and not 0 < self.crop_fraction <= 1:
            raise ConfigError("is outside (0, 1]; 0.875 is usual", crop_fraction=self.crop_fraction)
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError("is outside [0, 1]; 0.01 is usual", max_bad_fraction=self.max_bad_fraction)
        for name in ("mean", "std"):
            if (values := getattr(self, name)) is not None and len(values) not in (1, 3):
                raise ConfigError("is not one number, or three (red, green, blue)", **{name: values})
        if self.std is not None and min(self.std) <= 0:
            raise ConfigError("must be above 0; 0.5 and ImageNet's 0.229 0.224 0.225 are usual", std=self.std)

    def changed(self, preprocessing: Preprocessing) -> Preprocessing:
        """``preprocessing`` with the given fields; one number stands for all three channels."""
        names = ("mean", "std", "crop_fraction", "interpolation")
        given: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        for name in ("mean", "std"):
            if len(given.get(name, ())) == 1:
                given[name] = given[name] * 3
        return replace(preprocessing, **given)


def evaluate_elsewhere(
    config: EvaluateConfig, run: Run | None, progress: bool = False
) -> tuple[TaskKind, dict[str, Any], tuple[str, ...]]:
    """Evaluate a run, or the weights of ``config``, on all images of ``config.data``; no run is changed.

    Weights without a run are those of a classifier.

    Args:
        config: images, preprocessing, and model and weights if there is no run.
        run: run to evaluate; None for weights without one.
        progress: show bars.

    Returns:
        the task, the report, and "path: reason" of every image that was skipped.

    Raises:
        DataError: the folder is not a data set of the task, or has classes that the model lacks.
        CheckpointError: the weights do not fit the model or the classes.
    """
    assert config.data is not None
    task: Task
    data: DataSplits[Any]
    if run is not None:
        kind, task = run.read().kind, load_task(run)
        data = load_run_data(run, other=config.data, progress=progress)
        preprocessing = config.changed(run.read().preprocessing)
    else:
        assert config.model is not None
        kind = find_task(DEFAULT_TASK)
        source = DataConfig(path=config.data, val_fraction=1.0, max_bad_fraction=config.max_bad_fraction)
        data = kind.load_data(source, progress=progress)
        spec = TaskSpec(classes=data.classes)
        backbone = create_model(
            config.model,
            num_classes=kind.num_outputs(spec),
            image_size=config.image_size,
            weights=config.weights,
            replace_head=False,
        )
        task = kind.create(backbone, spec).eval()
        preprocessing = config.changed(replace(backbone.preprocessing, image_size=backbone.config.image_size))
    report = evaluate_task(task, data.held_out, preprocessing, batch_size=config.batch_size, progress=progress)
    return kind, report, data.skipped
