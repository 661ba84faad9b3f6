"""What every task promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vitrail.models import Backbone

if TYPE_CHECKING:
    from torchmetrics import MetricCollection  # takes seconds to import, and most commands need no metrics


class Task(nn.Module, ABC):
    """A backbone and what turns its features into an answer: head, loss, decoding, metrics.

    Attributes:
        backbone: its state-dict names start with ``backbone.`` here.
        classes: names of the classes, in the order of the labels.
    """

    def __init__(self, backbone: Backbone, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = classes

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) to the raw output; this is what is exported and quantised."""

    @abstractmethod
    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """A scalar to minimise, from the raw output and a batch's targets."""

    @abstractmethod
    def predict(self, output: Tensor) -> list[Any]:
        """The raw output as answers that a person understands, one an image."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics, to be fed with (raw output, targets)."""
