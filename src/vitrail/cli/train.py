"""``vitrail train``: from images to a run."""

from __future__ import annotations

from pathlib import Path

from vitrail.cli.display import Display, Output, OutputOptions, display, figure, number
from vitrail.cli.options import Groups, configured
from vitrail.core.paths import typed_path
from vitrail.runs.load import task_of
from vitrail.runs.recipe import expected
from vitrail.runs.run import Run
from vitrail.runs.settings import OPTION_NAMES
from vitrail.runs.telling import TOP_K
from vitrail.runs.train import train as train_model
from vitrail.tasks import Score
from vitrail.training import TrainConfig
from vitrail.training.recorder import Row, best_row, read_metrics

TRAIN_NAMES = OPTION_NAMES

TRAIN_GROUPS: Groups = {
    "Options": (
        "data.path",
        "model",
        "weights",
        "recipe",
        "task",
        "options",
        "image_size",
        "epochs",
        "minutes",
        "batch_size",
        "learning_rate",
        "seed",
    ),
    "More options: data": ("data",),
    "More options: training": (
        "weight_decay",
        "layer_decay",
        "warmup_epochs",
        "drop_path_rate",
        "label_smoothing",
        "ema_decay",
        "gradient_clip",
        "keep",
    ),
    "More options: fine-tuning": ("freeze", "freeze_epochs", "lora", "lora_alpha", "lora_layers"),
    "More options: uneven classes": (
        "class_weights",
        "class_weight_beta",
        "sampler",
        "loss",
        "focal_gamma",
        "logit_adjustment",
    ),
    "More options: duration": ("patience", "keep_score", "accumulate", "loggers"),
    "More options: preprocessing": ("mean", "std", "interpolation", "crop_fraction"),
    "More options: augmentation": ("augment",),
    "More options: teacher": ("distill",),
    "More options: hardware": (
        "precision",
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "num_workers",
        "deterministic",
    ),
}


@configured(TrainConfig(), names=TRAIN_NAMES, groups=TRAIN_GROUPS, expected=expected)
def train(
    config: TrainConfig,
    *,
    run: Path = Path("runs/train"),
    resume: bool = False,
    overwrite: bool = False,
    output: OutputOptions = Output(),
) -> None:
    """Train a model on a folder of images.

    For classification the folder has one folder of images for each class. It may be divided into `train/`, `val/` and
    `test/`, or folders with such a word in their names; else a validation part is drawn by seed. A first line tells
    what is learnt, and how much of the folder was left out. `--task` selects another task. Training uses AdamW with
    warm-up and cosine decay, augmentation, and a moving average of the weights. The weights, the curves and the
    settings are written to the run folder.

    **Examples**

    ```sh
    vitrail train --data photos/ --model edgevit_xxs --run runs/photos
    vitrail train --data photos/ --run runs/photos --epochs 50 --resume
    vitrail train --data photos/ --print-config > photos.yaml
    vitrail train --config photos.yaml --learning-rate 5e-4
    ```

    Args:
        run: Folder that the run is written to.
        resume: Continue an interrupted training where it stopped.
        overwrite: Delete a run that is in the folder.
    """
    with display(output) as shown:
        finished = train_model(config, run=run, resume=resume, overwrite=overwrite, progress=shown.progress)
        show_training(shown, finished)
        shown.say(f"Next: vitrail evaluate {typed_path(run)}")
        rows = recorded(finished)
        probe, kept = _probe_row(finished), finished.read().trained
        best = best_row(rows, deciding_score(finished)) if rows else {}
        shown.result({"run": str(run), "epochs": len(rows), **(probe if kept and kept.keep == "probe" else best)})


def recorded(run: Run) -> list[Row]:
    """The epochs of a run; a linear probe has none."""
    return read_metrics(run.metrics) if run.metrics.exists() else []


def _probe_row(run: Run) -> Row:
    """The linear probe that a training started from, as an epoch before the first; empty without one."""
    recipe = run.read().recipe
    scores = {} if recipe is None else recipe.known_probe_scores
    return {"epoch": 0} | {f"val_{name}": value for name, value in scores.items()} if scores else {}


def deciding_score(run: Run) -> Score:
    """The score that decides which epoch is the best."""
    return task_of(run).score(run.read().training.keep_score)


def show_training(shown: Display, run: Run) -> None:
    """The probe, the best and the last epoch."""
    rows, probe = recorded(run), _probe_row(run)
    score = deciding_score(run)
    kind = task_of(run)
    scores = [score, *(one for one in kind.scores if kind.task.per_image and one.name not in (score.name, *TOP_K))]
    found = {"probe": probe} | ({"best": best_row(rows, score), "last": rows[-1]} if rows else {})
    shown.table(
        f"Training: {len(rows)} epoch{'s' * (len(rows) != 1)}; loss and scores of the validation images",
        ("", "epoch", "training loss", "loss", *(one.title for one in scores)),
        [
            (
                name,
                number(row.get("epoch"), 0),
                number(row.get("train_loss"), 4),
                number(row.get("val_loss"), 4),
                *(figure(row.get(f"val_{one.name}"), percentage=one.percent) for one in scores),
            )
            for name, row in found.items()
            if row
        ],
    )
