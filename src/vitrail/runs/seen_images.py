"""What a run's model and a first look make of images: features, answers, light, size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.core.paths import cache_folder
from vitrail.core.progress import track
from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, LabelledImage, Samples, eval_loader
from vitrail.data.check.appearance import Appearance, look_at
from vitrail.evaluation.trust.data_drift import Seen
from vitrail.evaluation.trust.outlier_score import OutlierScore
from vitrail.evaluation.trust.temperature import probabilities_of
from vitrail.tasks import Task
from vitrail.training.embedding import embed

Array = NDArray[np.float64]


@dataclass
class Recorded:
    """Features and outputs of the images that a task has seen."""

    _features: list[Tensor] = field(default_factory=list)
    _outputs: list[Tensor] = field(default_factory=list)

    def add(self, output: Tensor, features: Tensor) -> None:
        self._features.append(features.detach().float().cpu())
        self._outputs.append(output.detach().float().cpu())

    @property
    def features(self) -> NDArray[np.float32]:
        """(n, num_features)

        Raises:
            CheckpointError: a feature is not finite.
        """
        rows = torch.cat(self._features).numpy()
        if not np.isfinite(rows).all():
            raise CheckpointError(
                "the backbone gives features that are not finite; use other weights, or the preprocessing that these "
                "were trained with"
            )
        return rows

    @property
    def outputs(self) -> Array:
        """(n, classes)"""
        return torch.cat(self._outputs).double().numpy()


@contextmanager
def recorded(task: Task) -> Iterator[Recorded]:
    """While the block runs, what the task computes is kept: its output and, from the same pass, its features."""
    seen = Recorded()

    def forward(images: Tensor) -> Tensor:
        output, features = task.with_features(images)
        seen.add(output, features)
        return output

    task.forward = forward  # type: ignore[method-assign]  # of this object, until the block ends
    try:
        yield seen
    finally:
        del task.forward


def answer_images(
    task: Task, samples: Samples, preprocessing: Preprocessing, *, batch_size: int, title: str, progress: bool
) -> Recorded:
    """Features and raw outputs of classified images, in one pass."""
    device = next(task.parameters()).device
    loader = eval_loader(samples, preprocessing, batch_size=batch_size)
    with recorded(task) as seen, torch.inference_mode():
        for batch in track(loader, title, progress=progress):
            task(preprocessing.normalize(batch.images.to(device)))
    return seen


def pictures_of(samples: Samples) -> ImageSet:
    """The image files of samples, each once, without annotations."""
    records = {
        record.files[0]: LabelledImage(name=record.files[0], source=record.source, digest=record.digest, label=0)
        for record in samples.records
    }
    return ImageSet(
        records=list(records.values()),
        max_pixels=samples.max_pixels,
        pixel_range=samples.pixel_range,
        damaged=samples.damaged,
    )


def features_of_pictures(
    task: Task, pictures: ImageSet, preprocessing: Preprocessing, *, batch_size: int, progress: bool
) -> NDArray[np.float32]:
    """Pooled features, from the cache where they are known."""
    folder = cache_folder("features")
    return embed(task.backbone, pictures, preprocessing, batch_size=batch_size, cache=folder, progress=progress)


def appearance_numbers(looks: list[Appearance]) -> dict[str, Array]:
    """One number an image of each kind: light and contrast from 0 to 1, sharpness, size and form."""
    return {
        "brightness": np.array([look.brightness / 255 for look in looks]),
        "contrast": np.array([look.contrast / 255 for look in looks]),
        "sharpness": np.array([look.sharpness for look in looks]),
        "size": np.array([float(np.sqrt(look.width * look.height)) for look in looks]),
        "aspect": np.array([look.aspect for look in looks]),
    }


def usable_pictures(pictures: ImageSet, *, progress: bool) -> tuple[ImageSet, list[Appearance], list[str]]:
    """The pictures that can be decoded, what they look like, and the names of the others."""
    looks = look_at(
        pictures.records,
        max_pixels=pictures.max_pixels,
        pixel_range=pictures.pixel_range,
        damaged=pictures.damaged,
        progress=progress,
    )
    usable = [record for record in pictures.records if record.name in looks]
    missing = [record.name for record in pictures.records if record.name not in looks]
    return replace(pictures, records=usable), [looks[record.name] for record in usable], missing


def answer_pictures(
    task: Task, pictures: ImageSet, preprocessing: Preprocessing, *, batch_size: int, progress: bool
) -> tuple[NDArray[np.float32], Array | None]:
    """Features (n, d), and the logits (n, c) of a task in which each image has one class."""
    if not task.per_image:
        return features_of_pictures(task, pictures, preprocessing, batch_size=batch_size, progress=progress), None
    found = answer_images(task, pictures, preprocessing, batch_size=batch_size, title="Answering", progress=progress)
    return found.features, found.outputs


def seen_of(
    looks: list[Appearance],
    features: NDArray[np.float32],
    logits: Array | None,
    score: OutlierScore,
    temperature: float = 1.0,
) -> Seen:
    """Everything that drift is told by, of images in one order.

    Args:
        looks: what each image looks like.
        features: (n, d).
        logits: (n, c), not yet divided by the temperature; None where the task chooses no class.
        score: the outlier score.
        temperature: what logits are divided by.
    """
    numbers = appearance_numbers(looks) | {"outlier_score": score(features, logits)}
    if logits is None:
        return Seen(features=features, numbers=numbers)
    numbers["confidence"] = probabilities_of(logits, temperature).max(axis=1)
    return Seen(features=features, numbers=numbers, answers=logits.argmax(axis=1))
