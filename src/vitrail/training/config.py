"""The configuration of training."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from vitrail.core.config import convert_fields, typed
from vitrail.core.errors import ConfigError
from vitrail.core.types import Interpolation, as_channels, as_image_size
from vitrail.data import AugmentConfig, DataConfig
from vitrail.models.registry import find_family, list_models
from vitrail.tasks import DEFAULT_TASK

RGB = 3
"""Channels of every image that is read."""

Keep = Literal["best", "last"]
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
        minutes: minutes that all may take: check of the data, training, validation, in ``vitrail run`` the other stages
            too. The first steps are measured, and the schedule is fitted to the time; the last epoch may be incomplete.
            If the epochs end before, they end the training. Default: no limit.
        batch_size: number of images in one step on one device.
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
    minutes: float | None = None
    batch_size: int = 64
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

    def __post_init__(self) -> None:
        convert_fields(self)
        for name in ("epochs", "batch_size", "num_nodes"):
            self._need(name, getattr(self, name) >= 1, "at least 1")
        for name in ("weight_decay", "warmup_epochs", "gradient_clip", "num_workers", "seed"):
            self._need(name, getattr(self, name) >= 0, "0 or more")
        for name in ("drop_path_rate", "label_smoothing", "ema_decay"):
            self._need(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._need("learning_rate", self.learning_rate > 0, "more than 0")
        self._need("layer_decay", 0 < self.layer_decay <= 1, "more than 0 and at most 1")
        self._need("crop_fraction", self.crop_fraction is None or 0 < self.crop_fraction <= 1, "more than 0, at most 1")
        self._need("minutes", self.minutes is None or 0 < self.minutes < math.inf, "more than 0")
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
