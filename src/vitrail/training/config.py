"""The configuration of training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from vitrail.core.config import convert_fields, differing_fields, typed
from vitrail.core.errors import ConfigError
from vitrail.core.registered import portable
from vitrail.core.types import Interpolation, as_channels, as_image_size
from vitrail.data import AugmentConfig, DataConfig, ResolvedAugment
from vitrail.models.registry import find_family, is_model
from vitrail.tasks import DEFAULT_TASK, ClassWeights, LossName
from vitrail.training.distillation.config import DistillConfig

RGB = 3
"""Channels of every image that is read."""

AUTO = "auto"
"""A batch size that is decided when the images, the model and the device are known."""

FREEZABLE = ("backbone", "stem")
"""Parts that can be frozen by name."""

Keep = Literal["best", "last"]
Recipe = Literal["auto", "scratch", "finetune", "probe"]
LoraLayers = Literal["attention", "mlp", "all"]
LoggerName = Literal["tensorboard", "csv", "wandb", "mlflow"]
Sampler = Literal["shuffled", "balanced"]
Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]
Precision = Literal[
    "auto",
    "32-true",
    "16-mixed",
    "bf16-mixed",
    "16-true",
    "bf16-true",
    "64-true",
    "transformer-engine",
    "transformer-engine-float16",
    "16",
    "bf16",
    "32",
    "64",
]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The configuration of training, as far as somebody decides it; a recipe decides the rest.

    Attributes:
        recipe: rule that makes the choices that are left out: "scratch" for random weights; "finetune" for weights that
            know other images (classification: first a linear probe, then all layers from it; the better one is kept);
            "probe" for the linear probe alone; "auto" takes "finetune" for classification (one class an image, or any
            number) where weights are given or found, and "scratch" elsewhere.
        task: task of the model: classification, multilabel (any number of classes an image), segmentation, detection,
            instances, pose, aesthetics, generation, pretraining or distillation (a teacher alone).
        options: options of the task alone, each as ``--option.NAME VALUE``, e.g. ``--option.head upernet``.
        model: name of a model; ``vitrail models`` lists them. Default: the smallest whose public weights are here or
            can be downloaded, with these; without any, edgevit_xxs with random weights.
        model_fields: fields of the family's configuration that differ from the variant's, e.g. {alpha: 1.0}. A class or
            a function becomes the name under which it is registered, or ``module:Name``.
        weights: weights to start from: a file, a run folder, an https URL, hf://owner/repository/file, or "pretrained"
            (or "pretrained:TAG") for the public ones. If the number of classes differs, a new classifier is trained.
            From a run, only the backbone is loaded. Default: random weights, where a model is given.
        image_size: pixels a side, or height and width. Default: the model's own size.
        crop_fraction: share of the shorter side that evaluation keeps, above 0 and at most 1. Default: the model's own
            share.
        mean: numbers subtracted from the pixels (0 to 1), one or one a channel. Default: those of the weights, if they
            say it, else the model's own.
        std: numbers that the pixels are then divided by, one or one a channel. Default: as for mean.
        interpolation: method that resizes images in evaluation. Default: as for mean.
        data: the images and their split.
        augment: random changes of the training images.
        distill: the teacher that the training imitates, and what of it.
        epochs: number of passes over the training images. Default: the recipe's; from random weights 100.
        minutes: minutes that all may take: check of the data, training, validation, in ``vitrail run`` the other stages
            too, in ``vitrail tune`` all trials. The first steps are measured, and the schedule is fitted to the time;
            the last epoch may be incomplete. If the epochs end before, they end the training. Default: no limit.
        batch_size: number of images in one batch on one device, or "auto" for the largest power of two that fits.
            Default: the recipe's; from random weights 64.
        learning_rate: learning rate of AdamW after warm-up; the number of devices does not scale it. Default: the
            recipe's; from random weights 0.001.
        weight_decay: weight decay of AdamW, on matrices and kernels alone.
        layer_decay: factor of the learning rate from one layer to the layer before it; below 1 for fine-tuning.
            Default: the recipe's; from random weights 1.
        warmup_epochs: epochs of linear warm-up, at most a quarter of all steps. Default: the recipe's; from random
            weights 5.
        drop_path_rate: stochastic depth (drop path) of the last block. Default: the recipe's; from random weights 0.05.
        label_smoothing: share of the target that is spread over all classes.
        ema_decay: decay of the moving average of the weights; the average is evaluated and kept. 0 turns it off.
            Default: the recipe's; from random weights 0.999.
        gradient_clip: largest norm of the gradients; 0 turns clipping off.
        keep: epoch whose weights become the model: the one with the best validation score (the lowest validation loss
            among equals), or the last.
        precision: number format of training; "auto" is bf16-mixed if the GPU has it in hardware, else 32-true.
        accelerator: kind of device to train on; "auto" takes a GPU if there is one.
        devices: number of devices, a list such as "0,1", or "auto" for all. BatchNorm takes the images of all of them.
        num_nodes: number of machines that train together.
        strategy: Lightning's strategy for several devices, e.g. ddp; "auto" leaves the choice to Lightning.
        num_workers: number of processes that decode images; 0 decodes in the training process.
        seed: random seed of the weights, the order of images, augmentation and dropout.
        deterministic: refuse GPU kernels whose results vary from run to run.
        freeze: part that is not trained: "backbone" (all but the head), "stem", or a number N for the first N layer
            groups from the image on. Default: nothing is frozen.
        freeze_epochs: epochs after which the frozen part (the backbone, unless freeze says another) is trained too,
            with a second warm-up; 0 keeps it frozen to the end.
        lora: rank of adapters (LoRA) of the backbone's linear layers, which are trained with the head while the rest is
            frozen, and merged into the weights at the end; 0 for none.
        lora_alpha: scale of the adapters, times 1 / lora.
        lora_layers: linear layers with adapters: attention, mlp, or all.
        keep_score: name of the validation score that decides which epoch is the best, such as macro_recall. Default:
            the first score of the task, top-1 for classification.
        patience: number of epochs without a better one, as keep counts the best, after which training stops; 0 trains
            all epochs.
        loss: loss of classes: cross_entropy, focal (right answers count less), logit_adjusted (the classes' shares are
            allowed for; where an image has one class), or asymmetric (where it has any number: classes that it has not
            count less).
        focal_gamma: power of the focal loss; 0 makes it the cross-entropy.
        logit_adjustment: scale of the logarithms that logit_adjusted adds to the logits in training.
        class_weights: weight of a class in the loss: balanced is one over its number of images, effective is milder for
            frequent classes. Default: all classes weigh the same.
        class_weight_beta: number below 1 for effective weights; the nearer to 1, the more balanced.
        loggers: where the curves are logged beside metrics.csv: tensorboard, csv, wandb or mlflow, one or several; in
            the run folder, unless the environment names a server.
        sampler: order of the training images: shuffled takes each image once an epoch, balanced each class as often.
        accumulate: number of batches whose gradients make one step, as one batch so many times larger would.
    """

    recipe: Recipe = "auto"
    task: str = DEFAULT_TASK
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    model: str | None = None
    model_fields: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    image_size: int | tuple[int, int] | None = None
    crop_fraction: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    epochs: int | None = None
    minutes: float | None = None
    batch_size: int | str | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.05
    layer_decay: float | None = None
    warmup_epochs: float | None = None
    drop_path_rate: float | None = None
    label_smoothing: float = 0.1
    ema_decay: float | None = None
    gradient_clip: float = 1.0
    keep: Keep = "best"
    precision: Precision = "auto"
    accelerator: Accelerator = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"
    num_workers: int = 2
    seed: int = 0
    deterministic: bool = True

    # How the training deviates from the plain one; docs/training.md says when to use which.
    freeze: int | str | None = None
    freeze_epochs: float = 0.0
    lora: int = 0
    lora_alpha: float = 16.0
    lora_layers: LoraLayers = "all"
    keep_score: str | None = None
    patience: int = 0
    accumulate: int = 1
    loss: LossName = "cross_entropy"
    focal_gamma: float = 2.0
    logit_adjustment: float = 1.0
    class_weights: ClassWeights | None = None
    class_weight_beta: float = 0.999
    sampler: Sampler = "shuffled"
    loggers: tuple[LoggerName, ...] = ("tensorboard",)

    def __post_init__(self) -> None:
        convert_fields(self)
        self._read_batch_size()
        for name in ("epochs", "num_nodes"):
            self._need(name, lambda value: value >= 1, "at least 1")
        for name in ("weight_decay", "warmup_epochs", "gradient_clip", "num_workers", "seed"):
            self._need(name, lambda value: value >= 0, "0 or more")
        for name in ("drop_path_rate", "label_smoothing", "ema_decay"):
            self._need(name, lambda value: 0 <= value < 1, "at least 0 and below 1")
        self._need("learning_rate", lambda value: value > 0, "more than 0")
        for name in ("layer_decay", "crop_fraction"):
            self._need(name, lambda value: 0 < value <= 1, "more than 0 and at most 1")
        self._check_deviations()
        self._need("minutes", lambda value: 0 < value < math.inf, "more than 0")
        if self.image_size is not None:
            as_image_size(self.image_size)
        object.__setattr__(self, "model_fields", {n: portable(v, n) for n, v in self.model_fields.items()})
        taken = sorted({"num_classes", "image_size", "drop_path_rate"} & self.model_fields.keys())
        if taken:
            raise ConfigError(f"model_fields has {', '.join(taken)}; that follows from the data or has its own option")
        if self.model_fields.get("in_chans", RGB) != RGB:
            raise ConfigError(
                f"model_fields has in_chans={self.model_fields['in_chans']}; images are always read as {RGB} channels "
                "(grey ones have three equal channels), so leave it out"
            )
        for name in ("mean", "std"):
            if getattr(self, name) is not None:
                as_channels(name, getattr(self, name))

    def _read_batch_size(self) -> None:
        if isinstance(self.batch_size, str) and self.batch_size.isdecimal():
            object.__setattr__(self, "batch_size", int(self.batch_size))
        limit = f"at least 1, or {AUTO}"
        self._need("batch_size", lambda value: value >= 1 if isinstance(value, int) else value == AUTO, limit)

    def _check_deviations(self) -> None:
        if isinstance(self.freeze, str) and self.freeze.isdecimal():
            object.__setattr__(self, "freeze", int(self.freeze))
        limit = f"{' or '.join(FREEZABLE)}, or a number of layer groups, at least 1"
        self._need("freeze", lambda value: value >= 1 if isinstance(value, int) else value in FREEZABLE, limit)
        self._need("accumulate", lambda value: value >= 1, "at least 1")
        self._need("class_weight_beta", lambda value: 0 <= value < 1, "at least 0 and below 1")
        self._need("lora_alpha", lambda value: value > 0, "more than 0")
        if self.lora and (self.freeze is not None or self.freeze_epochs):
            raise ConfigError(
                "freezes the backbone to the end by itself; leave out freeze and freeze_epochs", lora=self.lora
            )
        for name in ("freeze_epochs", "lora", "patience", "focal_gamma", "logit_adjustment"):
            self._need(name, lambda value: value >= 0, "0 or more")

    def _need(self, name: str, fits: Callable[[Any], bool], limit: str) -> None:
        value = getattr(self, name)
        if value is not None and not fits(value):
            raise ConfigError(f"is not allowed; it must be {limit}", **{name: value})

    def implied(self) -> dict[str, str]:
        """Fields that are None -> the default that applies, as far as it is known without the data."""
        known = dict.fromkeys(CHOSEN, "the recipe's")
        if self.recipe == "scratch" or (self.recipe == "auto" and self.model is not None and self.weights is None):
            known = {name: str(getattr(ResolvedConfig(), name)) for name in CHOSEN}
        known["weights"] = "random"
        if self.model is None:
            known |= {"model": "the smallest with public weights", "weights": "those of the model, if there are any"}
        elif not is_model(self.model):
            known = {}  # a generator takes no weights and has one image size
        elif self.weights is None:
            height, width = find_family(self.model).variants[self.model].image_size
            known |= {"image_size": f"{height} x {width}"}
        return {name: text for name, text in known.items() if getattr(self, name) is None}

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries of plain values, for ``run.json`` and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, also for values from JSON or YAML; missing fields take their defaults.

        Raises:
            ConfigError: an unknown field, or a value of the wrong type or out of range.
        """
        return typed(cls, values)


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(TrainConfig):
    """A configuration in which every choice is made. The defaults are the recipe "scratch"."""

    model: str = "edgevit_xxs"
    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    layer_decay: float = 1.0
    warmup_epochs: float = 5.0
    drop_path_rate: float = 0.05
    ema_decay: float = 0.999
    augment: ResolvedAugment = field(default_factory=ResolvedAugment)


CHOSEN = ("epochs", "batch_size", "learning_rate", "layer_decay", "warmup_epochs", "drop_path_rate", "ema_decay")
"""Fields that a recipe chooses where they are left out; those of the augmentation are :data:`CHOSEN_AUGMENT`."""


def completed(config: TrainConfig, known: ResolvedConfig) -> ResolvedConfig:
    """The same configuration; what it leaves out is as in ``known``."""
    own = {one.name: getattr(config, one.name) for one in fields(config)}
    taken = {name: getattr(known, name) for name in CHOSEN if own[name] in (None, AUTO)}
    if config.model is None:
        taken["model"] = known.model
        if not config.model_fields:
            taken["model_fields"] = known.model_fields
        if config.weights is None:
            taken["weights"] = known.weights
    return ResolvedConfig(**own | taken | {"augment": config.augment.resolved(known.augment)})


def differing_settings(known: ResolvedConfig, wanted: TrainConfig) -> list[str]:
    """What ``wanted`` decides otherwise than a training did, as "name old -> new"; what it leaves out agrees."""
    return differing_fields(known.to_dict(), completed(wanted, known).to_dict())
