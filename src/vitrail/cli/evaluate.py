"""``vitrail evaluate``: how often a model is right."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vitrail.cli.display import Display, Output, OutputOptions, display, figure, number, percent
from vitrail.cli.options import configured
from vitrail.cli.robustness import evaluate_robustness
from vitrail.core.config import check_choices, typed
from vitrail.core.errors import ConfigError
from vitrail.core.types import Interpolation, as_image_size
from vitrail.data import DataConfig
from vitrail.evaluation import GROUPS, RobustnessConfig
from vitrail.evaluation.robustness.config import Group
from vitrail.runs.evaluate import WEIGHTS, PreprocessingChanges, evaluate_elsewhere, evaluate_run, evaluate_weights
from vitrail.runs.load import task_of
from vitrail.runs.run import Run
from vitrail.tasks import DEFAULT_TASK, Score, find_task

HEADINGS = {"f1": "F1", "iou": "IoU", "ap": "AP"}

FEW_CLASSES = 20
"""Up to so many classes the table has all of them, else only the ones with the lowest F1."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is evaluated, and on which images.

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
        for name in ("batch_size", "num_images"):
            if getattr(self, name) < 1:
                raise ConfigError("is below 1", **{name: getattr(self, name)})
        check_choices(self)
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


@configured(
    EvaluateConfig(),
    groups={
        "Options": ("data", "batch_size", "max_bad_fraction"),
        "Robustness": ("robustness", "groups", "num_images", "robustness_seed"),
        "Weights without a run": ("model", "weights"),
        "Preprocessing": ("image_size", "mean", "std", "crop_fraction", "interpolation"),
    },
)
def evaluate(config: EvaluateConfig, /, *runs: Path, output: OutputOptions = Output()) -> None:
    """Measure the accuracy of a run or of a weights file.

    The weights and every exported file of a run are evaluated on the held-out images: the test part, or the
    validation part if there is none. The result is kept in the run as `evaluation.json` and two figures. With `--data`
    all images of another folder are taken, and the run does not change. To evaluate a weights file without a run, give
    `--model`, `--weights` and `--data`; Vitrail's and the authors' formats both work. `--robustness` takes several
    runs; runs that differ only in their seed become one row, and one curve with a band.

    **Examples**

    ```sh
    vitrail evaluate runs/photos
    vitrail evaluate runs/photos --data other_photos/
    vitrail evaluate runs/a runs/b --robustness --groups translation corruption
    vitrail evaluate --model vit_tiny_patch16 --weights vit.safetensors --data imagenet/ --mean 0.5 --std 0.5
    ```

    Args:
        runs: Run folder; `--robustness` takes several.
    """
    if config.robustness:
        if not runs or config.data is not None or config.model is not None:
            raise ConfigError("--robustness takes run folders, and measures on their own held-out images")
        settings = {"groups": config.groups, "num_images": config.num_images, "seed": config.robustness_seed}
        settings |= {"batch_size": config.batch_size}
        with display(output) as shown:
            evaluate_robustness(shown, runs, typed(RobustnessConfig, settings))
        return
    if len(runs) > 1:
        raise ConfigError(f"{len(runs)} runs given; several are only compared with --robustness")
    run = runs[0] if runs else None
    if (run is None) == (config.model is None or config.weights is None or config.data is None):
        raise ConfigError("give either a run folder, or all of --model, --weights and --data")
    with display(output) as shown:
        if run is not None and config.data is None:
            values = evaluate_run(
                Run.open(run), batch_size=config.batch_size, threads=torch.get_num_threads(), progress=shown.progress
            )
            show_evaluation(shown, values)
            shown.result({name: values[name] for name in ("split", "scores", "reports")})
            return
        scores, (report, skipped) = _evaluate(config, run, progress=shown.progress)
        for text in skipped:
            shown.say(f"skipped {text}")
        show_report(shown, report, [asdict(score) for score in scores])
        shown.result(report)


def _evaluate(
    config: EvaluateConfig, run: Path | None, *, progress: bool
) -> tuple[tuple[Score, ...], tuple[dict[str, Any], tuple[str, ...]]]:
    """Scores of the task, and the report of images that belong to no run."""
    changes = PreprocessingChanges(
        mean=config.mean, std=config.std, crop_fraction=config.crop_fraction, interpolation=config.interpolation
    )
    assert config.data is not None
    settings: dict[str, Any] = {"batch_size": config.batch_size, "progress": progress}
    if run is not None:
        opened = Run.open(run)
        return task_of(opened).scores, evaluate_elsewhere(opened, config.data, changes, **settings)
    assert config.model is not None
    assert config.weights is not None
    data = DataConfig(path=config.data, val_fraction=1.0, max_bad_fraction=config.max_bad_fraction)
    return find_task(DEFAULT_TASK).scores, evaluate_weights(
        config.model, config.weights, data, changes, image_size=config.image_size, **settings
    )


def show_report(shown: Display, report: dict[str, Any], scores: list[dict[str, Any]]) -> None:
    """The headline and the classes."""
    facts = [f"{one['title']} {figure(report[one['name']], percentage=one['percent'])}" for one in scores]
    facts.append(f"loss {number(report['loss'], 4)}")
    if "ece" in report:
        facts.append(f"calibration error {percent(report['ece'])}")
    shown.say(f"{report['num_images']} images: {', '.join(facts)}")
    rows = [row for row in report["per_class"] if row.get("support", 1)]
    columns = [name for name in (rows[0] if rows else ()) if name not in ("name", "support")]
    if not columns:
        return
    title = "Classes"
    if len(rows) > FEW_CLASSES:
        title = f"The {FEW_CLASSES} most difficult of {len(rows)} classes"
        rows = sorted(rows, key=lambda row: row[columns[-1]])[:FEW_CLASSES]
    counted = "support" in rows[0]
    shown.table(
        title,
        ("class", *(["images"] if counted else []), *(HEADINGS.get(name, name) for name in columns)),
        [
            (row["name"], *([row["support"]] if counted else []), *(percent(row[name]) for name in columns))
            for row in rows
        ],
    )


def show_evaluation(shown: Display, values: dict[str, Any]) -> None:
    """The weights in detail, and what every file of the run reaches."""
    scores = values["scores"]
    show_report(shown, values["reports"][WEIGHTS], scores)
    shown.table(
        f"Every file, on the {values['split']} images",
        ("file", *(one["title"] for one in scores), "loss", "same class as the weights"),
        [
            (
                name,
                *(figure(report[one["name"]], percentage=one["percent"]) for one in scores),
                number(report["loss"], 4),
                percent(report["agreement"]),
            )
            for name, report in values["reports"].items()
        ],
    )
    for reason in values.get("stale", {}).values():
        shown.say(f"Left out: {reason}")
