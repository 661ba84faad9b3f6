"""``vitrail evaluate``: how often a model is right."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitrail.cli.display import Display, Output, OutputOptions, display, figure, number, percent
from vitrail.cli.options import configured
from vitrail.cli.robustness import evaluate_robustness
from vitrail.core.errors import ConfigError
from vitrail.core.files import atomic_path
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, DataSplits, load_data
from vitrail.evaluation import GROUPS, RobustnessConfig, evaluate_task, figures_of
from vitrail.models import create_model
from vitrail.report import evaluate_run
from vitrail.runs.load import load_task, task_of
from vitrail.tasks import DEFAULT_TASK, Task, TaskSpec, find_task
from vitrail.training import load_run_data, typed

WEIGHTS = "torch-float"
"""How the evaluation of a run calls that of its weights."""

HEADINGS = {"f1": "F1", "iou": "IoU", "ap": "AP"}

FEW_CLASSES = 20
"""Up to so many classes the table has all of them, else only the ones with the lowest F1."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is evaluated, and on which images.

    Attributes:
        model: Name of a model, for weights that no run belongs to.
        weights: File, https URL or hf://owner/repository/file of those weights, or "pretrained" (or "pretrained:TAG").
        data: Folder of images, or "sample"; a run's own held-out images by default.
        image_size: Pixels a side, or height and width; the model's own by default.
        mean, std: What is subtracted from the pixels (0 to 1) and what they are divided by: one number, or one a
            channel; the model's own by default.
        crop_fraction: How much of the shorter side is kept; the model's own by default.
        interpolation: How images are resized, e.g. bicubic; the model's own by default.
        batch_size: Images at once; changes speed, never the result.
        max_bad_fraction: Share of images that may be undecodable; they are listed and skipped.
        robustness: Instead of the accuracy alone, measure what is left of it under shifts, rotations, changes of scale,
            corruptions and other resolutions; of one run, or of several side by side.
        groups: Which of these; all by default.
        num_images: At most so many images, for robustness.
        robustness_seed: Of noise and of the choice of images.
    """

    model: str | None = None
    weights: str | None = None
    data: str | None = None
    image_size: int | tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_fraction: float | None = None
    interpolation: str | None = None
    batch_size: int = 64
    max_bad_fraction: float = 0.01
    robustness: bool = False
    groups: tuple[str, ...] = GROUPS
    num_images: int = 1000
    robustness_seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size} is below 1; 64 is usual")
        for name in ("mean", "std"):
            if (values := getattr(self, name)) is not None and len(values) not in (1, 3):
                raise ConfigError(f"{name} has {len(values)} numbers; give one, or three (red, green, blue)")
        if self.std is not None and min(self.std) <= 0:
            raise ConfigError(f"std={self.std} must be above 0; 0.5 and ImageNet's 0.229 0.224 0.225 are usual")


@configured(
    EvaluateConfig(),
    groups={
        "Weights without a run": ("model", "weights"),
        "Images": ("data", "max_bad_fraction", "batch_size"),
        "Robustness": ("robustness", "groups", "num_images", "robustness_seed"),
        "Preprocessing": ("image_size", "mean", "std", "crop_fraction", "interpolation"),
    },
)
def evaluate(config: EvaluateConfig, /, *runs: Path, output: OutputOptions = Output()) -> None:
    """Measure the accuracy of a run or of a weights file.

    For a run: the weights, and every exported file, on the held-out images (the test part, or the validation part
    where there is none); the result is kept in the run as `evaluation.json` and two figures. With `--data` all
    images of another folder are taken, and the run is not changed. For a weights file, ours or the authors' layout:
    `--model`, `--weights` and `--data`. With `--robustness`, several runs may be named; those that differ in their
    seed alone become one row and one curve with a band.

    **Examples**

    ```sh
    vitrail evaluate runs/photos
    vitrail evaluate runs/photos --data other_photos/
    vitrail evaluate runs/a runs/b --robustness --groups translation corruption
    vitrail evaluate --model vit_tiny_patch16 --weights vit.safetensors --data imagenet/ --mean 0.5 --std 0.5
    ```

    Args:
        runs: Run folder; with `--robustness` perhaps several.
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
            values = write_evaluation(Run.open(run), config.batch_size, progress=shown.progress)
            show_evaluation(shown, values)
        else:
            kind = find_task(DEFAULT_TASK) if run is None else task_of(Run.open(run).read())
            values = evaluate_weights(shown, config) if run is None else _evaluate_elsewhere(shown, run, config)
            show_report(shown, values, [asdict(score) for score in kind.scores])
        shown.result(values)


def write_evaluation(run: Run, batch_size: int = 64, *, progress: bool = False) -> dict[str, Any]:
    """Evaluate a run's weights and files on its held-out images; write ``run.evaluation`` and the figures."""
    values = evaluate_run(run, batch_size=batch_size, threads=torch.get_num_threads(), progress=progress)
    run.figures.mkdir(exist_ok=True)
    for name, figure_ in figures_of(values["reports"][WEIGHTS]).items():
        with atomic_path(run.figures / f"{name}.png") as path:
            figure_.savefig(path, dpi=120)
    return {name: values[name] for name in ("split", "scores", "reports")}


def evaluate_weights(shown: Display, config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a weights file that no run belongs to."""
    assert config.model is not None
    assert config.data is not None
    data = load_data(
        DataConfig(path=config.data, val_fraction=1.0, max_bad_fraction=config.max_bad_fraction),
        progress=shown.progress,
    )
    model = create_model(
        config.model,
        num_classes=len(data.classes),
        image_size=config.image_size,
        weights=config.weights,
        replace_head=False,
    )
    own = replace(model.preprocessing, image_size=model.config.image_size)
    task = find_task(DEFAULT_TASK).create(model, TaskSpec(classes=data.classes)).eval()
    return _evaluate_on(shown, task, data, changed(own, config), config)


def _evaluate_elsewhere(shown: Display, folder: Path, config: EvaluateConfig) -> dict[str, Any]:
    run = Run.open(folder)
    data = load_run_data(run, other=config.data, progress=shown.progress)
    preprocessing = changed(Preprocessing.from_dict(run.read()["preprocessing"]), config)
    return _evaluate_on(shown, load_task(run), data, preprocessing, config)


def _evaluate_on(
    shown: Display, task: Task, data: DataSplits[Any], preprocessing: Preprocessing, config: EvaluateConfig
) -> dict[str, Any]:
    for text in data.skipped:
        shown.say(f"skipped {text}")
    return evaluate_task(task, data.held_out, preprocessing, batch_size=config.batch_size, progress=shown.progress)


def changed(preprocessing: Preprocessing, config: EvaluateConfig) -> Preprocessing:
    """``preprocessing`` with what the options say."""
    given: dict[str, Any] = {
        name: value
        for name in ("mean", "std", "crop_fraction", "interpolation")
        if (value := getattr(config, name)) is not None
    }
    for name in ("mean", "std"):
        if len(given.get(name, ())) == 1:
            given[name] = given[name] * 3
    return replace(preprocessing, **given)


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
