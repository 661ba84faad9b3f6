"""``vitrail pretrain``: from images without labels to a backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from vitrail.cli.display import Output, OutputOptions, display
from vitrail.cli.options import configured
from vitrail.cli.train import TRAIN_GROUPS, TRAIN_NAMES, show_training
from vitrail.core.errors import ConfigError
from vitrail.core.paths import typed_path
from vitrail.data import AugmentConfig
from vitrail.runs.train import train as train_model
from vitrail.training import TrainConfig
from vitrail.training.recorder import read_metrics

TASK, TAUGHT = "pretraining", "distillation"

DEFAULTS = TrainConfig(
    task=TASK,
    model="vit_tiny_patch16",
    augment=AugmentConfig(random_resized_crop_scale=(0.2, 1.0), rand_augment_num_ops=0, random_erasing=0.0),
    drop_path_rate=0.0,
    label_smoothing=0.0,
    keep="last",
)


@configured(DEFAULTS, names=TRAIN_NAMES, groups=TRAIN_GROUPS)
def pretrain(
    config: TrainConfig,
    *,
    objective: Literal["mpp", "mae", "distill"] = "mpp",
    run: Path = Path("runs/pretrain"),
    resume: bool = False,
    overwrite: bool = False,
    output: OutputOptions = Output(),
) -> None:
    """Train a backbone on images without labels: it predicts hidden patches, or imitates a teacher.

    `mpp` replaces half of the patch embeddings and predicts the colours of those patches; `mae` shows a quarter of the
    patches and predicts the pixels of the others; models that need whole maps get an image with painted squares.
    `distill` imitates the features of `--teacher`, or its output where it shows no features.
    `--option.NAME VALUE` sets the method's other options, such as `--option.target small_patch`. `vitrail train
    --weights RUN` then starts from the backbone, with a new head.

    **Examples**

    ```sh
    vitrail pretrain --data unlabeled/ --model vit_tiny_patch16 --objective mae --run runs/pre
    vitrail train --data photos/ --model vit_tiny_patch16 --weights runs/pre --run runs/photos
    vitrail pretrain --data unlabeled/ --model maxvit_tiny --option.cell 16 --resume
    vitrail pretrain --data unlabeled/ --model edgevit_xxs --objective distill --teacher timm:vit_small_patch14_dinov2
    ```

    Args:
        objective: Method: mpp corrupts half of the patches, mae drops three quarters of them, distill imitates a
            teacher.
        run: Folder that the run is written to.
        resume: Continue an interrupted training where it stopped.
        overwrite: Delete a run that is in the folder.
    """
    if config.task != TASK:
        raise ConfigError(f"task={config.task!r}: this verb only pretrains; for other tasks use vitrail train")
    if config.distill.teacher is not None and objective != "distill":
        raise ConfigError(
            "is for --objective distill; the other methods have no teacher", teacher=config.distill.teacher
        )
    if objective == "distill":
        config = replace(config, task=TAUGHT)
    else:
        config = replace(config, options={"objective": objective} | config.options)
    with display(output) as shown:
        finished = train_model(config, run=run, resume=resume, overwrite=overwrite, progress=shown.progress)
        show_training(shown, finished)
        shown.say(f"Next: vitrail train --model {config.model} --weights {typed_path(run)} --data FOLDER")
        rows = read_metrics(finished.metrics)
        shown.result({"run": str(run), "epochs": len(rows), **rows[-1]})
