"""Curves of accuracy and consistency over the strength of shifts, rotations, zooms, corruptions and resolutions.

Consistency is the share of images whose predicted class is that of the untouched picture, right or wrong. It measures
stability apart from accuracy.

``robustness.json`` holds::

    {"clean_top1", "num_images", "image_size", "seed", "skipped": {"resolution 0.5": reason},
     "diagonal_consistency",
     "summary": {"translation": {"top1", "consistency"}, ...},   means over all points that are not the untouched one
     "curves": [{"group", "name", "unit", "points": [{"x", "top1", "top1_low", "top1_high", "consistency"}, ...]}]}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitrail.core.errors import ConfigError, DataError, ImageSizeError, VitrailError
from vitrail.core.progress import Whole, track
from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet
from vitrail.evaluation.robustness.config import RobustnessConfig
from vitrail.evaluation.robustness.corruptions import CORRUPTIONS, corrupt
from vitrail.evaluation.robustness.perturbations import rotate, shift, zoom
from vitrail.evaluation.statistics import bootstrap
from vitrail.models import Backbone
from vitrail.models.checkpoint import load_state
from vitrail.tasks import Task

Change = Callable[[Tensor, list[str]], Tensor]
"""uint8 pictures (b, 3, h, w) and their names to changed ones."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One change of the pictures, and its place in a curve."""

    group: str
    curve: str
    unit: str
    x: float
    change: Change


def points_of(config: RobustnessConfig, image_size: tuple[int, int]) -> list[Point]:
    """All changes at the size that the model was trained at."""
    makers = {"translation": _shifts, "rotation": _rotations, "scale": _zooms, "corruption": _corruptions}
    return [point for group, maker in makers.items() if group in config.groups for point in maker(config, image_size)]


def _shifts(config: RobustnessConfig, image_size: tuple[int, int]) -> Iterator[Point]:
    def moved(images: Tensor, _: list[str], down: int, right: int) -> Tensor:
        return shift(images, down, right, config.border)

    for name, (vertical, horizontal) in {"horizontal": (0, 1), "vertical": (1, 0), "diagonal": (1, 1)}.items():
        for share in config.shifts:
            down, right = (round(share * side) for side in image_size)
            for sign in (-1, 1):
                yield Point(
                    group="translation",
                    curve=f"{name} shift",
                    unit="pixels",
                    x=sign * (right if horizontal else down),
                    change=partial(moved, down=sign * down * vertical, right=sign * right * horizontal),
                )


def _rotations(config: RobustnessConfig, image_size: tuple[int, int]) -> Iterator[Point]:  # noqa: ARG001 (one signature)
    def turned(images: Tensor, _: list[str], degrees: float) -> Tensor:
        return rotate(images, degrees)

    for angle in sorted({*config.angles, *(-angle for angle in config.angles)}):
        yield Point(group="rotation", curve="rotation", unit="degrees", x=angle, change=partial(turned, degrees=angle))


def _zooms(config: RobustnessConfig, image_size: tuple[int, int]) -> Iterator[Point]:  # noqa: ARG001 (one signature)
    def zoomed(images: Tensor, _: list[str], factor: float) -> Tensor:
        return zoom(images, factor)

    for factor in config.zooms:
        yield Point(group="scale", curve="scale", unit="factor", x=factor, change=partial(zoomed, factor=factor))


def _corruptions(config: RobustnessConfig, image_size: tuple[int, int]) -> Iterator[Point]:  # noqa: ARG001 (one signature)
    def corrupted(images: Tensor, names: list[str], name: str, severity: int) -> Tensor:
        pairs = zip(images, names, strict=True)
        return torch.stack([corrupt(image, name, severity, seed=config.seed, key=key) for image, key in pairs])

    for name in CORRUPTIONS:
        for severity in config.severities:
            change = partial(corrupted, name=name, severity=severity)
            yield Point(group="corruption", curve=name, unit="severity", x=severity, change=change)


def _untouched(images: Tensor, _: list[str]) -> Tensor:
    return images


def measure_robustness(
    model: Any,
    images: ImageSet,
    preprocessing: Preprocessing,
    config: RobustnessConfig | None = None,
    *,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure how accuracy and predictions change; the head of this file describes the result.

    Args:
        model: a classification task, a backbone, or any function from normalised images (b, 3, h, w) to logits; only
            a task or backbone can change its resolution.
        images: labelled.
        preprocessing: the model's preprocessing.
        config: choice of changes and images.
        progress: show a bar.

    Raises:
        DataError: there are no images.
    """
    config = config or RobustnessConfig()
    images = images.sample(config.num_images, config.seed)
    if len(images) == 0:
        raise DataError("there are no held-out images to measure robustness on; give the data a test or a val part")
    points = points_of(config, preprocessing.image_size)
    skipped: dict[str, str] = {}
    sizes = config.resolutions if "resolution" in config.groups else ()
    with Whole([("Robustness", 1.0 + len(points)), *(("Robustness", factor**2) for factor in sizes)]):
        clean, *changed = _predictions(
            model, images, preprocessing, [_untouched, *(p.change for p in points)], config.batch_size, progress
        )
        answers = list(zip(points, changed, strict=True))
        if sizes:
            answers += _resolutions(model, images, preprocessing, config, skipped, progress)
    labels = images.labels.numpy()
    return {
        "clean_top1": float((clean == labels).mean()),
        "num_images": len(images),
        "image_size": list(preprocessing.image_size),
        "seed": config.seed,
        "skipped": skipped,
        "diagonal_consistency": _diagonal(answers, clean),
        "summary": _summary(answers, clean, labels),
        "curves": _curves(answers, clean, labels, config.seed, preprocessing.image_size[0]),
    }


@torch.inference_mode()
def _predictions(
    model: Any,
    images: ImageSet,
    preprocessing: Preprocessing,
    changes: list[Change],
    batch_size: int,
    progress: bool,
) -> list[np.ndarray]:
    """Predicted classes (images,) after every change; each picture is decoded once."""
    device = next(model.parameters()).device if isinstance(model, torch.nn.Module) else torch.device("cpu")
    was_training = getattr(model, "training", False)
    if isinstance(model, torch.nn.Module):
        model.eval()
    found: list[list[Tensor]] = [[] for _ in changes]
    starts = range(0, len(images), batch_size)
    for start in track(starts, "Robustness", progress=progress):
        indices = range(start, min(start + batch_size, len(images)))
        batch = torch.stack([images.fitted(i, preprocessing)[0] for i in indices])
        names = [images.names[i] for i in indices]
        for kept, change in zip(found, changes, strict=True):
            kept.append(model(preprocessing.normalize(change(batch, names).to(device))).argmax(1).cpu())
    if isinstance(model, torch.nn.Module):
        model.train(was_training)
    return [torch.cat(kept).numpy() for kept in found]


def _resolutions(
    model: Any,
    images: ImageSet,
    preprocessing: Preprocessing,
    config: RobustnessConfig,
    skipped: dict[str, str],
    progress: bool,
) -> list[tuple[Point, np.ndarray]]:
    """The same weights at other image sizes; what cannot be built is noted in ``skipped``."""
    answers = []
    backbone = model.backbone if isinstance(model, Task) else model
    for factor in config.resolutions:
        height, width = (round(factor * side) for side in preprocessing.image_size)
        if not isinstance(backbone, Backbone):
            skipped[f"resolution {factor:g}"] = "not a model of ours"
            continue
        try:
            other = resized(backbone, (height, width))
        except (ConfigError, ImageSizeError, VitrailError) as error:
            skipped[f"resolution {factor:g}"] = str(error)
            continue
        at_size = replace(preprocessing, image_size=(height, width))
        (classes,) = _predictions(other, images, at_size, [_untouched], config.batch_size, progress)
        point = Point(group="resolution", curve="resolution", unit="pixels", x=height, change=_untouched)
        answers.append((point, classes))
    return answers


def resized(backbone: Backbone, image_size: tuple[int, int]) -> Backbone:
    """The same model with the same weights for another image size; tables of positions are resized.

    Raises:
        ImageSizeError: the model cannot take it.
        CheckpointError: a table cannot be resized.
    """
    other = type(backbone)(replace(backbone.config, image_size=image_size))
    other.check_image_size(*image_size)
    built = backbone.config.image_size
    load_state(other, backbone.state_dict(), {}, source=f"the model for {built}", image_size=built)
    return other.to(next(backbone.parameters()).device).eval()


Answers = list[tuple[Point, np.ndarray]]


def _curves(answers: Answers, clean: np.ndarray, labels: np.ndarray, seed: int, height: int) -> list[dict[str, Any]]:
    """Points in order of their strength, the untouched picture among them."""
    at_rest = {"translation": 0, "rotation": 0, "scale": 1, "corruption": 0, "resolution": height}
    curves: dict[tuple[str, str], dict[str, Any]] = {}
    for point, classes in answers:
        curve = curves.setdefault(
            (point.group, point.curve), {"group": point.group, "name": point.curve, "unit": point.unit, "points": []}
        )
        curve["points"].append(_point(point.x, classes, clean, labels, seed))
    for (group, _), curve in curves.items():
        curve["points"].append(_point(at_rest[group], clean, clean, labels, seed))
        curve["points"].sort(key=lambda one: one["x"])
    return list(curves.values())


def _point(x: float, classes: np.ndarray, clean: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    interval = bootstrap((classes == labels).astype(float)[None], seed=seed)
    return {
        "x": x,
        "top1": interval.mean,
        "top1_low": interval.low,
        "top1_high": interval.high,
        "consistency": float((classes == clean).mean()),
    }


def _summary(answers: Answers, clean: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    groups: dict[str, list[np.ndarray]] = {}
    for point, classes in answers:
        groups.setdefault(point.group, []).append(classes)
    return {
        group: {
            "top1": float(np.mean([(classes == labels).mean() for classes in rows])),
            "consistency": float(np.mean([(classes == clean).mean() for classes in rows])),
        }
        for group, rows in groups.items()
    }


def _diagonal(answers: Answers, clean: np.ndarray) -> float | None:
    """Share of pairs of diagonal shifts of a picture (shift 0 included) with the same class, as in Zhang 2019, "Making
    Convolutional Networks Shift-Invariant Again"; None where nothing was shifted."""
    rows = [clean, *(classes for point, classes in answers if point.curve == "diagonal shift")]
    if len(rows) < 2:
        return None
    pairs = [(rows[i] == rows[j]).mean() for i in range(len(rows)) for j in range(i)]
    return float(np.mean(pairs))
