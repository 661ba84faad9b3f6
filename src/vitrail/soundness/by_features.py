"""What the features of a trained backbone show: labels that are probably wrong, and images unlike all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from vitrail.core.paths import cache_folder, user_path
from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, LabelledImage, MultiLabelSet
from vitrail.data.check.near_copies import NearCopy
from vitrail.data.check.zoomed_copies import find_zoomed_copies
from vitrail.models import Backbone, create_model
from vitrail.models.weights_source import open_weights
from vitrail.soundness.confident_learning import judge_labels
from vitrail.soundness.config import CheckConfig
from vitrail.soundness.entries import judge_entries
from vitrail.soundness.reading import DataUnderCheck
from vitrail.soundness.same_images import label_of
from vitrail.soundness.soundness import Doubt, Example, Finding, amount
from vitrail.training.embedding import embed
from vitrail.training.folds import ALWAYS_TRAINED, deal_folds, split_folds
from vitrail.training.linear_probe import fit_linear_head

DEFAULT_MODEL = "vit_tiny_patch16"
"""The smallest model with public weights that know many things."""

GIVEN = ("image_size", "num_classes", "in_chans", "drop_path_rate")
"""Fields of a run's model that are arguments of their own."""

NUM_FOLDS = 5
"""Parts of the data; the labels of each are judged by a probe that was fitted on the others."""

NEIGHBOURS = 5
"""Nearest images whose mean distance says how alone an image is."""

ALONE = 5.0
"""Deviations (of the median) above the median distance from which an image is called an outlier."""

ZOOM_DISTANCE, ZOOM_PARTNERS, MOST_ZOOMS = 0.15, 3, 20_000
"""Cosine distance of features up to which one image may show a part of the other, images that are tried with each, and
pairs in all: some minutes."""

FEWEST = 20
"""Images from which labels and outliers are judged."""

Features = NDArray[np.float32]


def open_backbone(config: CheckConfig) -> tuple[Backbone, Preprocessing]:
    """The model of the configuration, and how it wants its images.

    Raises:
        VitrailError: the model or its weights cannot be used.
    """
    assert config.weights is not None
    name, fields = config.model, {}
    size: int | tuple[int, int] | None = config.image_size
    if name is None and user_path(config.weights).exists():
        source = open_weights(config.weights, ())
        name, size = source.model or None, size or source.image_size
        fields = {field: value for field, value in source.fields.items() if field not in GIVEN}
    backbone = create_model(
        name or DEFAULT_MODEL, num_classes=0, image_size=size, weights=config.weights, replace_head=True, **fields
    )
    known = replace(backbone.preprocessing, image_size=backbone.config.image_size)
    return backbone, known.changed(mean=config.mean, std=config.std)


def features_of(
    data: DataUnderCheck, model: tuple[Backbone, Preprocessing], config: CheckConfig, *, progress: bool
) -> Features:
    """Features (n, d) of the images, in the order of ``data.images``."""
    records = [
        LabelledImage(name=name, source=one.source, part=one.part, digest=one.digest, label=0)
        for name, one in data.images.items()
    ]
    samples = ImageSet(
        records=records,
        max_pixels=data.samples.max_pixels,
        pixel_range=data.samples.pixel_range,
        damaged=data.samples.damaged,
    )
    backbone, preprocessing = model
    return embed(
        backbone,
        samples,
        preprocessing,
        batch_size=config.batch_size,
        cache=cache_folder("features"),
        progress=progress,
    )


def find_wrong_labels(
    data: DataUnderCheck, features: Features, config: CheckConfig
) -> tuple[list[Finding], list[Doubt] | None]:
    """Labels that are probably wrong, as a finding and as a list; None where labels cannot be judged: images without
    classes, one class, or very few images."""
    if isinstance(data.samples, MultiLabelSet):
        return _find_wrong_entries(data, data.samples, features, config)
    images, classes = list(data.images.values()), data.splits.classes
    labels = np.array([one.label if isinstance(one, LabelledImage) else -1 for one in images], dtype=np.int64)
    if not classes or (labels < 0).any() or len(images) < FEWEST or len(np.unique(labels)) < 2:
        return [], None
    probabilities, judged = out_of_fold(features, labels, _groups(data), config.seed)
    found = judge_labels(probabilities[judged], labels[judged])
    order = np.argsort(found.margin, kind="stable")
    rows = [index for index in order.tolist() if found.margin[index] < 0 or found.doubted[index]]
    doubts = []
    for index in rows:
        record = images[judged[index]]
        doubts.append(
            Doubt(
                file=record.name,
                part=record.part,
                label=label_of(record, classes),
                suggested=classes[found.suggested[index]],
                score=float(found.margin[index]),
            )
        )
    sure = [doubt for index, doubt in zip(rows, doubts, strict=True) if found.doubted[index]]
    return _wrong_labels(sure, len(judged), found.num_wrong), doubts


def _wrong_labels(sure: Sequence[Doubt], num_judged: int, num_wrong: float) -> list[Finding]:
    """The finding of labels that confident learning counts as wrong; empty without any."""
    if not sure:
        return []
    finding = Finding(
        name="wrong-labels",
        serious=False,
        title=amount(len(sure), "label is probably wrong", "labels are probably wrong"),
        text=f"Of {num_judged} labels about {num_wrong:.0f} are wrong, by confident learning on a linear probe. "
        f"relabel.csv has the whole list, the most doubtful first; look before you change any.",
        count=len(sure),
        examples=tuple(
            Example(files=(doubt.file,), note=f"{doubt.label}, more like {doubt.suggested} ({doubt.score:+.2f})")
            for doubt in sure
        ),
    )
    return [finding]


def _find_wrong_entries(
    data: DataUnderCheck, samples: MultiLabelSet, features: Features, config: CheckConfig
) -> tuple[list[Finding], list[Doubt] | None]:
    """The same of images with any number of classes: each class is a question of its own."""
    if len(data.images) < FEWEST:
        return [], None
    place = {id(record): index for index, record in enumerate(samples.records)}
    images, classes = list(data.images.values()), data.splits.classes
    targets = torch.stack([samples.target(place[id(one)]) for one in images]).numpy()
    found = judge_entries(features, targets, _groups(data), config.seed)
    if not found.num_judged:
        return [], None
    doubts = []
    for one in found.doubts:
        record, name = images[one.image], classes[one.label]
        label, suggested = (name, f"not {name}") if one.given else (f"not {name}", name)
        doubts.append(Doubt(file=record.name, part=record.part, label=label, suggested=suggested, score=one.margin))
    sure = [doubt for one, doubt in zip(found.doubts, doubts, strict=True) if one.doubted]
    return _wrong_labels(sure, found.num_judged, found.num_wrong), doubts


def out_of_fold(
    features: Features, labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (n, classes) by probes that have not learnt from the image or a copy of it, and the indices of the
    images that have such ones: not those that are alone in their class."""
    present, numbered = np.unique(labels, return_inverse=True)
    num_classes = int(present.max()) + 1
    strength = fit_linear_head(features, numbered, len(present), groups=groups, seed=seed).strength
    folds = deal_folds(numbered, NUM_FOLDS, seed, groups)
    probabilities = np.zeros((len(labels), num_classes))
    for learnt, held_out in split_folds(folds):
        head = fit_linear_head(features[learnt], numbered[learnt], len(present), strengths=(strength,), seed=seed)
        logits = head.logits(features[held_out])
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities[np.ix_(held_out, present)] = weights / weights.sum(axis=1, keepdims=True)
    return probabilities, np.flatnonzero(folds != ALWAYS_TRAINED)


def _groups(data: DataUnderCheck) -> NDArray[np.int64]:
    """A number for each image; images that are the same or all but the same have one number."""
    leader = list(range(len(data.equals)))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = index = leader[leader[index]]
        return index

    for pair in data.near_copies:
        leader[find(pair.second)] = find(pair.first)
    group = {name: find(index) for index, names in enumerate(data.equals) for name in names}
    return np.array([group[name] for name in data.images], dtype=np.int64)


def find_zooms(data: DataUnderCheck, near: Neighbours) -> list[NearCopy]:
    """Pairs of images, by index, of which one shows a part of the other. Only images with like features are compared,
    and of those at most :data:`MOST_ZOOMS` pairs; pairs that are near copies anyway are left out."""
    group = _groups(data)
    pairs = {}
    for index, (distances, others) in enumerate(zip(near.distances, near.indices, strict=True)):
        for distance, other in zip(distances[: ZOOM_PARTNERS + 1].tolist(), others.tolist(), strict=False):
            if distance <= ZOOM_DISTANCE and group[index] != group[other]:
                pairs[min(index, other), max(index, other)] = distance
    chosen = sorted(pairs, key=lambda pair: (pairs[pair], pair))[:MOST_ZOOMS]
    return find_zoomed_copies(np.array([data.looks[name].thumbnail for name in data.images]), chosen)


def find_outliers(data: DataUnderCheck, near: Neighbours) -> list[Finding]:
    """Images that are far from their nearest neighbours."""
    if len(data.images) < FEWEST:
        return []
    distances = near.distances[:, 1:].mean(axis=1)
    median = float(np.median(distances))
    deviation = 1.4826 * float(np.median(np.abs(distances - median)))
    limit = median + ALONE * max(deviation, 1e-3)
    names = list(data.images)
    order = [index for index in np.argsort(-distances, kind="stable").tolist() if distances[index] > limit]
    if not order:
        return []
    return [
        Finding(
            name="outliers",
            serious=False,
            title=amount(len(order), "image is unlike all others", "images are unlike all others"),
            text="Do they belong to the data? Their features are far from those of their nearest neighbours.",
            count=len(order),
            examples=tuple(
                Example(files=(names[index],), note=f"{distances[index] / max(median, 1e-6):.1f} times as far as usual")
                for index in order
            ),
        )
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """The nearest images of each image.

    Attributes:
        distances: cosine distances (n, k), the nearest first; the first is usually the image itself, at 0.
        indices: of those images, (n, k).
    """

    distances: NDArray[np.float64]
    indices: NDArray[np.int64]


def find_neighbours(features: Features) -> Neighbours:
    """The :data:`NEIGHBOURS` nearest images of each image, and itself."""
    from sklearn.neighbors import NearestNeighbors  # seconds to import, which most commands need not wait for

    count = min(NEIGHBOURS + 1, len(features))
    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(features)
    distances, indices = search.kneighbors(features)
    return Neighbours(distances=distances, indices=indices)
