"""Evaluation of a run or of a weights file on images that belong to no run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError
from vitrail.core.types import Interpolation, PixelRange, Preprocessing, as_image_size
from vitrail.data import DataConfig, DataSplits, check_pixel_range
from vitrail.evaluation import GROUPS, evaluate_task
from vitrail.evaluation.robustness.config import Group
from vitrail.models import create_model
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task
from vitrail.runs.preprocessing import decide_preprocessing, source_of
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
        part: Part of `--data` that is measured; "all" takes every image of the folder.
        image_size: Pixels a side, or height and width. Default: the model's own size.
        mean: Numbers subtracted from the pixels (0 to 1), one or one a channel. Default: the model's own.
        std: Numbers that the pixels are then divided by, one or one a channel. Default: the model's own.
        crop_fraction: Share of the shorter side that is kept. Default: the model's own share.
        interpolation: Method that resizes images. Default: the model's own.
        pixel_range: Values that become black and white in grey images of more than 8 bits. Default: those of the run,
            or a range that fits the images.
        batch_size: Number of images at once; changes speed, never the result.
        max_bad_fraction: Share of the images that may be undecodable; they are listed and skipped. Default: 1 %, or 3
            files if that is more.
        robustness: Measure the accuracy under shifts, rotations, changes of scale, corruptions and other resolutions,
            of one run or of several side by side.
        groups: Kinds of change that the robustness is measured under.
        num_images: Largest number of images for robustness.
        robustness_seed: Random seed of the noise and of the choice of images.
    """

    model: str | None = None
    weights: str | None = None
    data: str | None = None
    part: Literal["all", "train", "val", "test"] = "all"
    image_size: int | tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_fraction: float | None = None
    interpolation: Interpolation | None = None
    pixel_range: PixelRange | None = None
    batch_size: int = 64
    max_bad_fraction: float | None = None
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
        check_pixel_range(self.pixel_range)
        if self.max_bad_fraction is not None and not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError("is outside [0, 1]; 0.01 is usual", max_bad_fraction=self.max_bad_fraction)
        decide_preprocessing(Preprocessing(), "", self)


def evaluate_elsewhere(
    config: EvaluateConfig, run: Run | None, progress: bool = False
) -> tuple[TaskKind, dict[str, Any], tuple[str, ...]]:
    """Evaluate a run, or the weights of ``config``, on images of ``config.data``; no run is changed.

    Weights without a run are those of a classifier.

    Args:
        config: images, preprocessing, and model and weights if there is no run.
        run: run to evaluate; None for weights without one.
        progress: show bars.

    Returns:
        the task, the report (with the preprocessing, and remarks on it and on the weights), and lines on the data: the
        parts that were measured, warnings, what was left out.

    Raises:
        DataError: the folder is not a data set of the task, lacks the part, or has classes that the model lacks.
        CheckpointError: the weights do not fit the model or the classes.
    """
    assert config.data is not None
    task: Task
    data: DataSplits[Any]
    if run is not None:
        kind, task = run.read().kind, load_task(run)
        data = load_run_data(run, other=config.data, progress=progress)
        known, origin = run.read().preprocessing, str(run.folder)
        remarks: tuple[str, ...] = ()
    else:
        assert config.model is not None
        kind = find_task(DEFAULT_TASK)
        source = DataConfig(
            path=config.data,
            val_fraction=1.0,
            max_bad_fraction=config.max_bad_fraction,
            pixel_range=config.pixel_range,
        )
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
        known = replace(backbone.preprocessing, image_size=backbone.config.image_size)
        origin, remarks = source_of(backbone.preprocessing_source, config.weights), backbone.remarks
    preprocessing, sentence = decide_preprocessing(known, origin, config)
    images = data.choose(config.part)
    report = evaluate_task(task, images, preprocessing, batch_size=config.batch_size, progress=progress)
    counts = ", ".join(f"{len(part)} {name}" for name, part in data.parts.items())
    parts = (f"{config.data} has the parts {counts}; measured: {config.part}",) if len(data.parts) > 1 else ()
    lines = (*parts, *data.warnings, *(f"skipped {text}" for text in data.skipped))
    return kind, report | {"preprocessing": preprocessing.to_dict(), "remarks": [*remarks, sentence]}, lines
