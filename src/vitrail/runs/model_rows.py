"""Models to start from: what is asked for, and what is known of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError
from vitrail.core.types import ImageSize, as_image_size
from vitrail.data import DataConfig
from vitrail.runs.probe_candidates import ProbeSource


@dataclass(frozen=True, kw_only=True)
class ModelChoiceConfig:
    """The images, and the limits of a model.

    Attributes:
        data: the images.
        task: Task of the data. Default: what the annotations in the folder are for.
        pattern: Shell-style pattern of the names of models.
        weights: Weights that are here, for models beside those with public weights: NAME=FILE, or run folders.
        image_size: Pixels a side, or height and width. Default: the model's own size.
        max_latency_ms: Largest time of one image in ms, with one thread. Default: no limit.
        max_size_mb: Largest size of the float32 weights in MB (10^6 bytes). Default: no limit.
        measure: Measure the models that come into question on this machine, instead of looking into a table.
    """

    data: DataConfig = field(default_factory=DataConfig)
    task: str | None = None
    pattern: str = "*"
    weights: tuple[str, ...] = ()
    image_size: int | tuple[int, int] | None = None
    max_latency_ms: float | None = None
    max_size_mb: float | None = None
    measure: bool = False

    def __post_init__(self) -> None:
        convert_fields(self)
        for name in ("max_latency_ms", "max_size_mb"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError("is not above 0; give a positive number, or leave it out", **{name: value})
        if self.image_size is not None:
            as_image_size(self.image_size)

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.max_latency_ms is not None or self.max_size_mb is not None


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """A model to start from.

    Attributes:
        model: name that ``vitrail models`` lists.
        weights: weights as ``vitrail train`` takes them; None for random ones.
        place: where these are: "file", "run", "cache", "hub", or "random".
        image_size: (height, width) of its images.
        num_params: number of parameters with the head of the task.
        macs: multiply-accumulates of an image of the variant's own size.
        latency_ms: time of one image with one thread; None where it is not known.
        timed: "here", "table", or "" where it is not known.
        contended: whether other programs disturbed the measurement here, so that it is processor time.
        runtime: what ran the model; "" where it was not measured here.
        top1: published ImageNet accuracy of the weights, in percent.
        why: why it is named.
    """

    model: str
    weights: str | None
    place: str
    image_size: ImageSize
    num_params: int
    macs: int
    latency_ms: float | None = None
    timed: str = ""
    contended: bool = False
    runtime: str = ""
    top1: float | None = None
    why: str = ""

    @property
    def size_bytes(self) -> int:
        """Size of the float32 weights."""
        return 4 * self.num_params


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that may be named.

    Attributes:
        source: its weights; None for random ones.
        row: what is known of it.
    """

    source: ProbeSource | None
    row: ModelRow

    @property
    def name(self) -> tuple[str, str | None]:
        return self.row.model, self.row.weights

    @property
    def fields(self) -> dict[str, Any]:
        return {} if self.source is None else self.source.fields


@dataclass(kw_only=True)
class LeftOut:
    """What was left out, and why.

    Attributes:
        slow: models that take longer than the limit.
        large: models whose weights are larger than the limit.
        unknown: number of models whose time is not in the table.
        unfit: number of models that do not take the image size or the task.
        unmeasured: number of models that were not measured.
    """

    slow: list[ModelRow] = field(default_factory=list)
    large: list[ModelRow] = field(default_factory=list)
    unknown: int = 0
    unfit: int = 0
    unmeasured: int = 0
