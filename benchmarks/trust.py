"""How far `vitrail trust` and `vitrail drift` keep what they promise, on the features of a frozen backbone.

    python benchmarks/trust.py --data ../shared/data/flowers17_128 \
        --weights vit_tiny_patch16_224_augreg_in1k.safetensors --other pets=../shared/data/pets3_seg_192

The data has train/ and test/ with one folder a class. A linear probe stands for the model, so that many draws can be
measured. Features are kept in `--cache`.
"""

from __future__ import annotations

import argparse
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from sklearn.metrics import roc_auc_score

from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, LabelledImage, find_images
from vitrail.data.check.appearance import look_at
from vitrail.evaluation.trust.class_sets import SetMethod, bound_of, check_sets, misfits, sets_of
from vitrail.evaluation.trust.data_drift import Seen, differences
from vitrail.evaluation.trust.outlier_score import fit_outlier_score
from vitrail.evaluation.trust.temperature import bins_of, fit_temperature, mean_loss, probabilities_of
from vitrail.models import Backbone, create_model
from vitrail.runs.seen_images import seen_of
from vitrail.training.embedding import embed
from vitrail.training.linear_probe import LinearHead, fit_linear_head

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Source = Path | bytes

CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "at 60 % of the light": lambda image: image.point(lambda value: int(value * 0.6)),
    "at 35 % of the light": lambda image: image.point(lambda value: int(value * 0.35)),
    "blurred by 2 pixels": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
}


@dataclass
class Looked:
    """Images with their features."""

    sources: list[Source]
    features: NDArray[np.float32]
    labels: Labels


class Eye:
    """A frozen backbone."""

    def __init__(self, model: str, weights: str, size: int, cache: Path) -> None:
        self.backbone: Backbone = create_model(
            model, num_classes=0, image_size=size, weights=weights, replace_head=True
        )
        known = replace(self.backbone.preprocessing, image_size=self.backbone.config.image_size)
        self.how: Preprocessing = known.changed(mean=(0.5,), std=(0.5,))
        self.cache = cache

    def look(self, sources: Sequence[Source], labels: Labels | None = None) -> Looked:
        features = embed(self.backbone, images_of(sources), self.how, cache=self.cache, batch_size=16)
        return Looked(list(sources), features, np.zeros(len(features), np.int64) if labels is None else labels)


def images_of(sources: Sequence[Source]) -> ImageSet:
    return ImageSet(records=[LabelledImage(name=str(i), source=one, label=0) for i, one in enumerate(sources)])


def read_part(eye: Eye, folder: Path) -> Looked:
    groups = [sorted(one.iterdir()) for one in sorted(path for path in folder.iterdir() if path.is_dir())]
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return eye.look([file for group in groups for file in group], labels)


def changed(file: Source, change: Callable[[Image.Image], Image.Image]) -> bytes:
    assert isinstance(file, Path)
    buffer = io.BytesIO()
    with Image.open(file) as image:
        change(image.convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()


def fit_head(features: NDArray[np.float32], labels: Labels) -> LinearHead:
    present, numbered = np.unique(labels, return_inverse=True)
    return fit_linear_head(features, numbered, len(present), strengths=(0.1,))


def outlier_scores(known: Looked, held: Looked, head: LinearHead) -> Callable[[NDArray[np.float32]], dict[str, Array]]:
    """Every score that was tried, of features; `known` fits them, `held` scales them."""
    ours = fit_outlier_score(known.features, known.labels)
    both = ours.scaled(held.features, head.logits(held.features))
    centre = known.features.mean(axis=0)
    _, axes = np.linalg.eigh((known.features - centre).T @ (known.features - centre))
    rest = axes[:, : -known.features.shape[1] // 2]
    unit = known.features / np.linalg.norm(known.features, axis=1, keepdims=True)

    def residual(features: NDArray[np.float32]) -> Array:
        return np.asarray(np.linalg.norm((features - centre) @ rest, axis=1), np.float64)

    alpha = head.logits(held.features).max(axis=1).mean() / residual(held.features).mean()

    def scores(features: NDArray[np.float32]) -> dict[str, Array]:
        logits = head.logits(features)
        energy = -np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)) - logits.max(axis=1)
        alike = np.sort(features / np.linalg.norm(features, axis=1, keepdims=True) @ unit.T, axis=1)
        return {
            "distance and energy (chosen)": both(features, logits),
            "ViM": alpha * residual(features) + energy,
            "energy": energy,
            "largest logit": -logits.max(axis=1),
            "largest probability": -probabilities_of(logits).max(axis=1),
            "distance (Mahalanobis)": ours(features),
            "nearest neighbour": -alike[:, -1],
            "fifth neighbour": -alike[:, -5],
        }

    return scores


def measure_outliers(train: Looked, test: Looked, others: dict[str, Looked], draws: int, images: int) -> None:
    """AUROC of images of held-out classes, and of other images, against test images of the known classes."""
    cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(draws):
        random = np.random.default_rng(seed)
        known = np.sort(random.permutation(17)[:12])
        chosen = np.concatenate([random.permutation(np.flatnonzero(train.labels == one))[:images] for one in known])
        random.shuffle(chosen)
        held, fit = (taken(train, part) for part in (chosen[: len(chosen) // 5], chosen[len(chosen) // 5 :]))
        scores = outlier_scores(fit, held, fit_head(fit.features, fit.labels))
        inside = np.isin(test.labels, known)
        usual = scores(test.features[inside])
        tried = {"held-out classes": test.features[~inside]} | {name: one.features for name, one in others.items()}
        for place, features in tried.items():
            for method, values in scores(features).items():
                truth = np.r_[np.zeros(len(usual[method])), np.ones(len(values))]
                cells[method][place].append(roc_auc_score(truth, np.r_[usual[method], values]))
    names = ["held-out classes", *others]
    print(f"\n{images} training images a class, {draws} draws of 12 of 17 classes\n")
    print(f"| score | {' | '.join(names)} | least of the draws |\n|{'---|' * (len(names) + 2)}")
    for method, row in cells.items():
        shown = " | ".join(f"{mean(row[name]):.3f}" for name in names)
        print(f"| {method} | {shown} | {min(row['held-out classes']):.3f} |")


def taken(looked: Looked, indices: Labels) -> Looked:
    sources = [looked.sources[index] for index in indices.tolist()]
    return Looked(sources, looked.features[indices], looked.labels[indices])


def measure_sets(every: Looked, draws: int, images: int, calibration: int) -> None:
    """Coverage of sets and calibration error, with probes of few images a class."""
    rows: dict[tuple[str, float], list[tuple[float, float, float]]] = defaultdict(list)
    errors: list[tuple[float, ...]] = []
    for seed in range(draws):
        random = np.random.default_rng(seed)
        fit = np.concatenate([random.permutation(np.flatnonzero(every.labels == one))[:images] for one in range(17)])
        rest = random.permutation(np.setdiff1d(np.arange(len(every.labels)), fit))
        head = fit_head(every.features[fit], every.labels[fit])
        logits, labels = head.logits(every.features[rest]), every.labels[rest]
        found = fit_temperature(logits[:calibration], labels[:calibration])
        probabilities, tested = probabilities_of(logits, found), labels[calibration:]
        before, after = (one[calibration:] for one in (probabilities_of(logits), probabilities))
        figures = (mean_gap(before, tested), mean_gap(after, tested))
        losses = (mean_loss(logits[calibration:], tested), mean_loss(logits[calibration:] / found, tested))
        errors.append((found, *figures, *losses, float((after.argmax(axis=1) == tested).mean())))
        tried = {method: misfits(probabilities, method) for method in get_args(SetMethod)}
        # of the paper: each image takes a random share of the class's own probability, too
        tried["raps, random share"] = tried["raps"] + random.random((len(labels), 1)) * probabilities
        for method, fits in tried.items():
            true = fits[np.arange(calibration), labels[:calibration]]
            for coverage in (0.8, 0.9, 0.95):
                check = check_sets(sets_of(fits[calibration:], bound_of(true, coverage)), tested)
                rows[method, coverage].append((check.coverage, check.mean_size, check.empty))
    print(f"\nprobes of {images} images a class, {calibration} calibration images, {draws} draws\n")
    print("| top-1 | temperature | error before | error after | loss before | loss after |\n|---|---|---|---|---|---|")
    columns = [mean(one) for one in zip(*errors, strict=True)]
    print("| {5:.1%} | {0:.2f} | {1:.1%} | {2:.1%} | {3:.3f} | {4:.3f} |".format(*columns))
    print("\n| sets | stated | covered | classes | empty |\n|---|---|---|---|---|")
    for (method, coverage), checks in rows.items():
        covered, size, empty = (mean(one) for one in zip(*checks, strict=True))
        print(f"| {method} | {coverage:.0%} | {covered:.1%} | {size:.2f} | {empty:.1%} |")


def mean_gap(probabilities: Array, labels: Labels) -> float:
    """The expected calibration error, without the interval that takes most of the time."""
    bins = bins_of(probabilities, labels)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / len(labels)


def measure_drifts(train: Looked, test: Looked, others: dict[str, Looked], draws: int) -> None:
    """How often test images are called different, and, in a quarter of the draws, how often other images are."""
    kept = {name: looks_of(one) for name, one in {"": train, "test images": test, **others}.items()}
    alarms: dict[tuple[str, int], int] = defaultdict(int)
    for seed in range(draws):
        random = np.random.default_rng(seed)
        order = random.permutation(len(train.labels))
        val, fit = order[:250], order[250:]
        head = fit_head(train.features[fit], train.labels[fit])
        score = fit_outlier_score(train.features[fit], train.labels[fit])
        score = score.scaled(train.features[val], head.logits(train.features[val]))

        def see(name: str, looked: Looked, chosen: Labels, score=score, head=head) -> Seen:  # type: ignore[no-untyped-def]  # bound here
            features = looked.features[chosen]
            return seen_of([kept[name][index] for index in chosen], features, head.logits(features), score)

        before = see("", train, val)
        for name, looked in {"test images": test, **(others if seed < draws // 4 else {})}.items():
            for count in (20, 60):
                chosen = random.permutation(len(looked.labels))[:count]
                found = differences(before, see(name, looked, chosen), num_classes=17, seed=seed)
                alarms[name, count] += any(one.found for one in found)
    print(f"\n{draws} draws, 250 validation images\n\n| new images | 20 images | 60 images |\n|---|---|---|")
    for name in ("test images", *others):
        tried = draws if name == "test images" else draws // 4
        print(f"| {name} | {alarms[name, 20]} of {tried} | {alarms[name, 60]} of {tried} |")


def looks_of(looked: Looked) -> list:  # type: ignore[type-arg]
    found = look_at(images_of(looked.sources).records, max_pixels=10**8)
    return [found[str(index)] for index in range(len(looked.sources))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--model", default="vit_tiny_patch16")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--other", nargs="*", default=[], help="NAME=FOLDER of other images")
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--cache", type=Path, default=Path("features"))
    args = parser.parse_args()
    eye = Eye(args.model, args.weights, args.image_size, args.cache)
    train, test = (read_part(eye, args.data / part) for part in ("train", "test"))
    others = {name: eye.look([changed(one, change) for one in test.sources[::3]]) for name, change in CHANGES.items()}
    for name, _, folder in (one.partition("=") for one in args.other):
        files = find_images(Path(folder))
        others[name] = eye.look([files[index] for index in np.random.default_rng(0).permutation(len(files))[:90]])
    every = Looked(
        train.sources + test.sources, np.concatenate([train.features, test.features]), np.r_[train.labels, test.labels]
    )
    for images in (64, 20):
        measure_outliers(train, test, others, 5, images)
    for images in (3, 10):
        measure_sets(every, args.draws, images, 250)
    measure_drifts(train, test, others, args.draws)


if __name__ == "__main__":
    main()
