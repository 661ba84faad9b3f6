"""The configuration of training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from vitrail.core.config import convert_fields, typed
from vitrail.core.errors import ConfigError
from vitrail.core.types import Interpolation, as_channels, as_image_size
from vitrail.data import AugmentConfig, DataConfig
from vitrail.models.registry import find_family, list_models
from vitrail.tasks import DEFAULT_TASK, ClassWeights, LossName

RGB = 3
"""Channels of every image that is read."""

AUTO = "auto"
"""A batch size that is decided when the images, the model and the device are known."""

FREEZABLE = ("backbone", "stem")
"""Parts that can be frozen by name."""

Keep = Literal["best", "last"]
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
    """The configuration of training.

    Attributes:
        task: task of the model: classification, segmentation, detection, instances, pose, aesthetics, generation or
            pretraining.
        options: options of the task alone, each as ``--option.NAME VALUE``, e.g. ``--option.head upernet``.
        model: name of a model; ``vitrail models`` lists them.
        model_fields: fields of the family's configuration that differ from the variant's, e.g. {alpha: 1.0}.
        weights: weights to start from: a file, a run folder, an https URL, hf://owner/repository/file, or "pretrained"
            (or "pretrained:TAG") for the public ones. If the number of classes differs, a new classifier is trained.
            From a run, only the backbone is loaded. Default: random weights.
        image_size: pixels a side, or height and width. Default: the model's own size.
        crop_fraction: share of the shorter side that evaluation keeps, above 0 and at most 1. Default: the model's own
            share.
        mean: numbers subtracted from the pixels (0 to 1), one or one a channel. Default: those of the weights, if they
            say it, else the model's own.
        std: numbers that the pixels are then divided by, one or one a channel. Default: as for mean.
        interpolation: method that resizes images in evaluation. Default: as for mean.
        data: the images and their split.
        augment: random changes of the training images.
        epochs: number of passes over the training images.
        batch_size: number of images in one batch on one device, or "auto" for the largest power of two that fits.
        learning_rate: learning rate of AdamW after warm-up; the number of devices does not scale it.
        weight_decay: weight decay of AdamW, on matrices and kernels alone.
        layer_decay: factor of the learning rate from one layer to the layer before it; below 1 for fine-tuning.
        warmup_epochs: epochs of linear warm-up, at most a quarter of all steps.
        drop_path_rate: stochastic depth (drop path) of the last block.
        label_smoothing: share of the target that is spread over all classes.
        ema_decay: decay of the moving average of the weights; the average is evaluated and kept. 0 turns it off.
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
        loss: loss of a choice among classes: cross_entropy, focal (right answers count less), or logit_adjusted (the
            classes' shares are allowed for).
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

    task: str = DEFAULT_TASK
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    model: str = "edgevit_xxs"
    model_fields: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    image_size: int | tuple[int, int] | None = None
    crop_fraction: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 100
    batch_size: int | str = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    warmup_epochs: float = 5.0
    drop_path_rate: float = 0.05
    label_smoothing: float = 0.1
    ema_decay: float = 0.999
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
            self._need(name, getattr(self, name) >= 1, "at least 1")
        for name in ("weight_decay", "warmup_epochs", "gradient_clip", "num_workers", "seed"):
            self._need(name, getattr(self, name) >= 0, "0 or more")
        for name in ("drop_path_rate", "label_smoothing", "ema_decay"):
            self._need(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._need("learning_rate", self.learning_rate > 0, "more than 0")
        self._need("layer_decay", 0 < self.layer_decay <= 1, "more than 0 and at most 1")
        self._need("crop_fraction", self.crop_fraction is None or 0 < self.crop_fraction <= 1, "more than 0, at most 1")
        self._check_deviations()
        if self.image_size is not None:
            as_image_size(self.image_size)
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
        known = self.batch_size >= 1 if isinstance(self.batch_size, int) else self.batch_size == AUTO
        self._need("batch_size", known, f"at least 1, or {AUTO}")

    @property
    def images_per_batch(self) -> int:
        """The batch size as a number, which it is once "auto" has been decided."""
        assert isinstance(self.batch_size, int), "the batch size is not decided yet"
        return self.batch_size

    def _check_deviations(self) -> None:
        if isinstance(self.freeze, str) and self.freeze.isdecimal():
            object.__setattr__(self, "freeze", int(self.freeze))
        known = self.freeze in (None, *FREEZABLE) if not isinstance(self.freeze, int) else self.freeze >= 1
        self._need("freeze", known, f"{' or '.join(FREEZABLE)}, or a number of layer groups, at least 1")
        self._need("accumulate", self.accumulate >= 1, "at least 1")
        self._need("class_weight_beta", 0 <= self.class_weight_beta < 1, "at least 0 and below 1")
        self._need("lora_alpha", self.lora_alpha > 0, "more than 0")
        if self.lora and (self.freeze is not None or self.freeze_epochs):
            raise ConfigError(
                "freezes the backbone to the end by itself; leave out freeze and freeze_epochs", lora=self.lora
            )
        for name in ("freeze_epochs", "lora", "patience", "focal_gamma", "logit_adjustment"):
            self._need(name, getattr(self, name) >= 0, "0 or more")

    def _need(self, name: str, fits: bool, limit: str) -> None:
        if not fits:
            raise ConfigError(f"is not allowed; it must be {limit}", **{name: getattr(self, name)})

    def implied(self) -> dict[str, str]:
        """Fields that are None -> the default that applies, as far as it is known without the data."""
        if self.model not in list_models():
            return {}  # a generator takes no weights and has one image size
        known = {"weights": "random"}
        if self.weights is None:
            family = find_family(self.model)
            height, width = family.variants[self.model].image_size
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
