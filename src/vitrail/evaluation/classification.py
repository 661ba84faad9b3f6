"""Accuracy of a classifier, overall and by class, and calibration of its confidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from vitrail.core.errors import DataError
from vitrail.core.progress import track
from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, eval_loader
from vitrail.tasks.class_means import macro_scores

EVALUATING = "Evaluating"
"""Title of the work that people see."""

NUM_BINS = 15
"""Of equal width, as in Guo et al. 2017, On Calibration of Modern Neural Networks."""


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """One class's row; all but ``support`` (number of images) are 0 to 1, and 0 where nothing was predicted or seen."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, kw_only=True)
class ConfidenceBin:
    """The images whose confidence lies in (``low``, ``high``]: how confident the model was, and how often right."""

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True, kw_only=True)
class ClassificationReport:
    """What :func:`evaluate` measured.

    Attributes:
        top1, top5: share of images whose class is the most probable, or among the five most probable (among all, where
            there are fewer classes).
        loss: mean cross-entropy, in nats.
        ece: expected calibration error: mean gap between confidence and accuracy over :data:`NUM_BINS` bins.
        num_images: how many were evaluated.
        per_class: one row a class, in the order of the labels.
        confusion: ``confusion[i][j]`` images of class i were taken for class j.
        calibration: the bins of ``ece``, those without images left out.
    """

    top1: float
    top5: float
    loss: float
    ece: float
    num_images: int
    per_class: tuple[ClassResult, ...]
    confusion: list[list[int]]
    calibration: tuple[ConfidenceBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for ``evaluation.json``; with ``macro_recall`` (the balanced accuracy) and ``macro_f1``, the
        means of the classes' recalls and F1 over the classes that occur."""
        values = asdict(self)
        return values | macro_scores(values["per_class"])

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, also after a trip through JSON; other entries are ignored."""
        plain = {name: values[name] for name in ("top1", "top5", "loss", "ece", "num_images", "confusion")}
        return cls(
            **plain,
            per_class=tuple(ClassResult(**row) for row in values["per_class"]),
            calibration=tuple(ConfidenceBin(**row) for row in values["calibration"]),
        )


def evaluate(
    predictor: Callable[[Tensor], Tensor],
    images: ImageSet,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    progress: bool = False,
) -> ClassificationReport:
    """Measure a classifier on labelled images.

    Args:
        predictor: a task, a model, or any function from normalised float32 images (b, 3, h, w) to logits
            (b, len(classes)). A module is run in evaluation mode, on its own device, and left as it was.
        images: images whose labels index ``classes``.
        preprocessing: what the predictor expects.
        classes: names, in the order of the labels.
        batch_size: images at once.
        num_workers: processes that decode; 0 decodes here.
        progress: show a bar.

    Raises:
        DataError: no images, a label outside of ``classes``, or a predictor with another number of outputs.
    """
    loader = eval_loader(images, preprocessing, batch_size=batch_size, num_workers=num_workers)
    if int(images.labels.max()) >= len(classes):
        raise DataError(f"the data has label {int(images.labels.max())}, but there are only {len(classes)} classes")
    metrics = _metrics(len(classes))
    confidences, losses = [], []
    with _evaluation_mode(predictor) as device, torch.inference_mode():
        for batch in track(loader, EVALUATING, progress=progress):
            logits = predictor(preprocessing.normalize(batch.images.to(device))).float().cpu()
            _check_logits(logits, len(classes))
            probabilities = logits.softmax(dim=1)
            metrics.update(probabilities, batch.targets)
            losses.append(F.cross_entropy(logits, batch.targets, reduction="none").double())
            best = probabilities.max(dim=1)
            confidences.append(torch.stack([best.values.double(), (best.indices == batch.targets).double()]))
    return _report(metrics.compute(), torch.cat(losses), torch.cat(confidences, dim=1), classes)


def _check_logits(logits: Tensor, num_classes: int) -> None:
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise DataError(
            f"the model gives outputs of shape {tuple(logits.shape[1:])} an image, but the data has {num_classes} "
            f"classes; evaluate it on data with its own classes"
        )


@contextmanager
def _evaluation_mode(predictor: Callable[[Tensor], Tensor]) -> Iterator[torch.device]:
    """A module in evaluation mode, and the device that it takes its input on."""
    if not isinstance(predictor, nn.Module):
        yield torch.device("cpu")
        return
    modes = {module: module.training for module in predictor.modules()}
    predictor.eval()
    try:
        yield next((tensor.device for tensor in predictor.parameters()), torch.device("cpu"))
    finally:
        for module, training in modes.items():
            module.training = training


def _metrics(num_classes: int) -> MetricCollection:
    same: dict[str, Any] = {"num_classes": num_classes, "validate_args": False}
    return MetricCollection(
        {
            "top1": MulticlassAccuracy(average="micro", **same),
            "top5": MulticlassAccuracy(top_k=min(5, num_classes), average="micro", **same),
            "precision": MulticlassPrecision(average=None, **same),
            "recall": MulticlassRecall(average=None, **same),
            "f1": MulticlassF1Score(average=None, **same),
            "confusion": MulticlassConfusionMatrix(**same),
            "ece": MulticlassCalibrationError(n_bins=NUM_BINS, norm="l1", **same),
        },
        compute_groups=False,  # grouping by equal states of the first batch would make top-5 a copy of top-1
    )


def _report(
    values: dict[str, Tensor], losses: Tensor, confidences: Tensor, classes: Sequence[str]
) -> ClassificationReport:
    confusion = values["confusion"]
    columns = (values[name].tolist() for name in ("precision", "recall", "f1"))
    rows = zip(classes, *columns, confusion.sum(dim=1).tolist(), strict=True)
    return ClassificationReport(
        top1=float(values["top1"]),
        top5=float(values["top5"]),
        loss=float(losses.mean()),
        ece=float(values["ece"]),
        num_images=len(losses),
        per_class=tuple(
            ClassResult(name=name, precision=precision, recall=recall, f1=f1, support=support)
            for name, precision, recall, f1, support in rows
        ),
        confusion=confusion.tolist(),
        calibration=confidence_bins(*confidences),
    )


def confidence_bins(confidence: Tensor, correct: Tensor) -> tuple[ConfidenceBin, ...]:
    """The bins of images (n,) by confidence, those without images left out; ``correct`` is 1 or 0."""
    edges = torch.linspace(0, 1, NUM_BINS + 1, dtype=torch.float64)
    place = torch.bucketize(confidence, edges[1:-1])  # right-closed bins
    bins = []
    for index in range(NUM_BINS):
        inside = place == index
        if count := int(inside.sum()):
            bins.append(
                ConfidenceBin(
                    low=float(edges[index]),
                    high=float(edges[index + 1]),
                    confidence=float(confidence[inside].mean()),
                    accuracy=float(correct[inside].mean()),
                    count=count,
                )
            )
    return tuple(bins)
