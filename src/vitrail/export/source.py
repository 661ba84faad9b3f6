"""What is written into a file: a model, and facts about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from vitrail.core.errors import ExportError
from vitrail.core.types import Preprocessing
from vitrail.export.outlier_output import OUTLIER_OUTPUT, OutlierOutput, WithOutlierScore
from vitrail.export.rule import rule_of
from vitrail.quantization import QuantizedModel, check_usable
from vitrail.tasks import Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A model to be exported.

    Attributes:
        model: the float model.
        images: real normalised images (n, c, h, w), n >= 2.
        facts: what the file says of itself, see :func:`about`.
        quantized: the quantised form of the model, written instead of it.
        dynamic_size: whether height and width stay free.
        outlier: a second output of a float classifier, see :func:`with_outlier_score`.

    Raises:
        ExportError: fewer than two images, or not (n, c, h, w); a model that is not in float32 or does not return one
            tensor; not a class name for each output; or a quantised model that shall take any size.
    """

    model: nn.Module
    images: Tensor
    facts: dict[str, Any] = field(default_factory=dict)
    quantized: QuantizedModel | None = None
    dynamic_size: bool = False
    outlier: OutlierOutput | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or len(self.images) < 2:
            raise ExportError(
                f"verification images have shape {tuple(self.images.shape)}; "
                f"pass at least 2 real normalised images (n, c, h, w)"
            )
        output = check_usable(self.model, self.images, ExportError)
        classes = self.facts.get("classes") or ()
        by_class = output is not None and output.ndim in (2, 4) and self.output_name == "logits"
        count = output.shape[1] if output is not None and by_class else len(classes)
        if classes and count != len(classes):
            raise ExportError(
                f"the model gives {count} values an image, and there are {len(classes)} class names; name each output "
                "once, in order, or none: classes=[]"
            )
        if self.quantized is not None and not self.quantized.plan.operands:
            raise ExportError(
                "the plan has nothing in integers, so the file would be one of floats; export it as float"
            )
        if self.quantized is not None and self.dynamic_size:
            raise ExportError("a quantised model keeps the image size of its calibration; leave out dynamic_size")

    @property
    def reference(self) -> nn.Module:
        """The model that the file must agree with."""
        return self.model if self.quantized is None else self.quantized

    @property
    def written(self) -> nn.Module:
        """The module whose graph is written."""
        if self.quantized is not None:
            return self.quantized.graph_module
        if self.outlier is None:
            return self.model
        assert isinstance(self.model, Task)
        return WithOutlierScore(self.model, self.outlier.score)

    @property
    def output_names(self) -> list[str]:
        """The names of all outputs, that of the model's own first."""
        return [self.output_name] + ([] if self.outlier is None else [OUTLIER_OUTPUT])

    @property
    def output_name(self) -> str:
        return getattr(self.model, "output_name", "logits")

    @property
    def temperature(self) -> float:
        """What the model divides its logits by, where it is one of our tasks."""
        value = getattr(self.model, "temperature", 1.0)
        return float(value) if isinstance(value, int | float) else 1.0

    @property
    def metadata(self) -> dict[str, str]:
        """The facts as strings of JSON: ``vitrail.preprocessing``, ``vitrail.classes``, ..."""
        return {f"vitrail.{name}": json.dumps(value, ensure_ascii=False) for name, value in self.facts.items()}


def about(preprocessing: Preprocessing, classes: Sequence[str], model: nn.Module) -> dict[str, Any]:
    """Facts of a file: how an image becomes its input, the names of its outputs, how these are decoded, and all that in
    words. A model that is none of our tasks is taken for a classifier."""
    decoding = getattr(model, "decoding", None)
    task = {"name": "classification", "frame": "crop"} if decoding is None else decoding()
    facts = {"preprocessing": preprocessing.to_dict(), "classes": list(classes)}
    return facts | {"task": task, "rule": rule_of(task)}


def with_outlier_score(source: Source, outlier: OutlierOutput) -> Source:
    """The same source with a second output, which its facts tell of.

    Args:
        source: a float task that gives each image one class.
        outlier: the second output.
    """
    task = source.facts["task"] | {OUTLIER_OUTPUT: outlier.facts}
    return replace(source, outlier=outlier, facts=source.facts | {"task": task, "rule": rule_of(task)})
