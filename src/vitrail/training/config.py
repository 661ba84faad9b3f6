"""The one typed configuration of training."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, Self, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from vitrail.core.errors import ConfigError
from vitrail.data import AugmentConfig, DataConfig
from vitrail.tasks import DEFAULT_TASK

T = TypeVar("T")

Keep = Literal["best", "last"]


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
    precision: str = "auto"
    accelerator: str = "auto"
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
        self._need("keep", self.keep in get_args(Keep), " or ".join(get_args(Keep)))

    def _need(self, name: str, fits: bool, limit: str) -> None:
        if not fits:
            raise ConfigError(f"{name}={getattr(self, name)!r} is not allowed; it must be {limit}")

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


def typed(config: type[T], values: dict[str, Any]) -> T:
    """A configuration (any dataclass) from plain values, as JSON and YAML have them.

    Raises:
        ConfigError: an unknown field, or a value of the wrong type or out of range.
    """
    _check_names(config, values, "")
    try:
        return TypeAdapter(config).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        raise ConfigError(
            _without_prefix(first["msg"])
            if first["type"] == "value_error"
            else (f"{where}={first['input']!r} is not allowed: {first['msg']}")
        ) from error


def _without_prefix(message: str) -> str:
    return message.removeprefix("Value error, ")


def _check_names(config: type, values: dict[str, Any], path: str) -> None:
    if not isinstance(values, dict):
        raise ConfigError(f"{path.rstrip('.') or 'configuration'}={values!r} is not a table of fields and values")
    known = [item.name for item in fields(config)]
    types = get_type_hints(config)
    for name, value in values.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {path}{close[0]}?" if close else f"known ones are {', '.join(known)}"
            raise ConfigError(f"unknown field {path}{name}; {hint}")
        if is_dataclass(types[name]) and isinstance(types[name], type):
            _check_names(types[name], value, f"{path}{name}.")


def differing_fields(old: dict[str, Any], changed: dict[str, Any], path: str = "") -> list[str]:
    """ "name old -> new" for every field in which two configurations differ, nested ones with dots."""
    found = []
    for name in sorted(old.keys() | changed.keys()):
        before, after = old.get(name), changed.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differing_fields(before, after, f"{path}{name}.")
        elif _plain(before) != _plain(after):
            found.append(f"{path}{name} {before!r} -> {after!r}")
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
