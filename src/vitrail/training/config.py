"""The one typed configuration of training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from vitrail.core.config import check_choices, typed
from vitrail.core.errors import ConfigError
from vitrail.data import AugmentConfig, DataConfig
from vitrail.tasks import DEFAULT_TASK

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
    """Everything that decides how a model is trained.

    Attributes:
        task: what is learnt: classification, segmentation, detection, instances, pose, aesthetics, generation or
            pretraining.
        options: what only that task can be told, e.g. ``--option.head upernet``.
        model: a name that ``vitrail models`` lists.
        model_fields: fields of that family's configuration that shall differ from the variant's, e.g. {alpha: 1.0}.
        weights: file, run folder, https URL or hf://owner/repository/file of weights to start from, or "pretrained" (or
            "pretrained:TAG") for the public ones; the classifier is trained anew where it does not fit, and of a run
            only the backbone is taken.
        image_size: pixels a side, or (height, width); the model's own by default.
        crop_fraction: share of the shorter side that evaluation keeps, at most 1; the model's own by default.
        data: where the images are and how they are split.
        augment: how training images are varied.
        epochs: passes over the training images.
        batch_size: images of one step on one device.
        learning_rate: AdamW's, after warm-up; it is not scaled by the number of devices.
        weight_decay: AdamW's, on matrices and kernels alone.
        layer_decay: learning-rate factor from one layer to the one before it; below 1 for fine-tuning.
        warmup_epochs: linear warm-up; at most a quarter of all steps, so that short runs need no other value.
        drop_path_rate: stochastic depth of the last block.
        label_smoothing: share of the target that is spread over all classes.
        ema_decay: of the moving average of the weights, which is what is evaluated and kept; 0 turns it off.
        gradient_clip: largest norm of the gradients; 0 turns clipping off.
        keep: which epoch's weights become the model: the one with the best validation score (the lowest validation loss
            among equals), or the last.
        precision: "auto" is bf16-mixed where a GPU has it in hardware, else 32-true; or any that Lightning knows.
        accelerator, devices, num_nodes, strategy: as Lightning's Trainer takes them.
        num_workers: processes that decode images; 0 decodes in the training process.
        seed: of weights, order, augmentation and dropout.
        deterministic: refuse GPU kernels whose results vary from run to run.
    """

    task: str = DEFAULT_TASK
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    model: str = "edgevit_xxs"
    model_fields: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    image_size: int | tuple[int, int] | None = None
    crop_fraction: float | None = None
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 100
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
        for name in ("epochs", "batch_size", "num_nodes"):
            self._need(name, getattr(self, name) >= 1, "at least 1")
        for name in ("weight_decay", "warmup_epochs", "gradient_clip", "num_workers", "seed"):
            self._need(name, getattr(self, name) >= 0, "0 or more")
        for name in ("drop_path_rate", "label_smoothing", "ema_decay"):
            self._need(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._need("learning_rate", self.learning_rate > 0, "more than 0")
        self._need("layer_decay", 0 < self.layer_decay <= 1, "more than 0 and at most 1")
        self._need("crop_fraction", self.crop_fraction is None or 0 < self.crop_fraction <= 1, "more than 0, at most 1")
        taken = sorted({"num_classes", "image_size", "drop_path_rate"} & self.model_fields.keys())
        if taken:
            raise ConfigError(f"model_fields has {', '.join(taken)}; that follows from the data or has its own option")
        check_choices(self)

    def _need(self, name: str, fits: bool, limit: str) -> None:
        if not fits:
            raise ConfigError(f"is not allowed; it must be {limit}", **{name: getattr(self, name)})

    def to_dict(self) -> dict[str, Any]:
        """As nested dictionaries of plain values, for ``run.json`` and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, also after a trip through JSON or YAML; missing fields take their defaults.

        Raises:
            ConfigError: an unknown field, or a value of the wrong type or out of range.
        """
        return typed(cls, values)
