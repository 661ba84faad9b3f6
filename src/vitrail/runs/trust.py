"""How far a run's answers can be trusted: fitted on the validation images after a training, checked on others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError, RunError
from vitrail.data import DataSplits, ImageSet, Samples
from vitrail.evaluation.trust.class_sets import (
    SetMethod,
    bound_of,
    check_coverage,
    check_sets,
    coverage_spread,
    fewest_images,
    misfits,
    sets_of,
)
from vitrail.evaluation.trust.outlier_score import VALIDATION_SHARE, OutlierScore, fit_outlier_score
from vitrail.evaluation.trust.temperature import (
    bins_of,
    calibration_error,
    fit_temperature,
    mean_loss,
    probabilities_of,
    require_logits,
)
from vitrail.figures.save import save_figures
from vitrail.figures.trust import trust_figure
from vitrail.runs.data import load_run_data
from vitrail.runs.load import as_run, load_task
from vitrail.runs.run import Run, writes
from vitrail.runs.seen_images import (
    answer_images,
    answer_pictures,
    features_of_pictures,
    pictures_of,
    seen_of,
    usable_pictures,
)
from vitrail.runs.telling import share_text
from vitrail.runs.trust_file import MISFITS, OUTLIER, Arrays, TrustFile, seen_arrays, write_trust
from vitrail.tasks import Task

FEW_IMAGES = 50
"""Validation images below which a note says how little they tell."""

NUM_FOLDS = 5
"""Parts of the validation images that are checked in turns where there are no test images."""

FEWEST_CHECKED = 10
"""Images below which nothing is checked."""

MOST_SEEN = 1000
"""Validation images whose statistics the run keeps, drawn by seed."""

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TrustConfig:
    """The configuration of ``vitrail trust``.

    Attributes:
        coverage: Share of images whose set of classes shall hold the right one.
        sets: How sets are made. "lac" makes the smallest ones, and empty ones where no class is probable enough; "raps"
            makes larger ones for difficult images, and none that is empty.
        use_temperature: Whether the run's answers and files have probabilities over the temperature from now on; files
            that exist have to be exported again. Default: as it was, at first not.
        num_images: Largest number of training images that the outlier score is fitted to.
        batch_size: Number of images at once; changes speed, never the result.
        seed: Random seed of draws.
    """

    coverage: float = 0.9
    sets: SetMethod = "lac"
    use_temperature: bool | None = None
    num_images: int = 5000
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        convert_fields(self)
        check_coverage(self.coverage)
        if self.sets not in get_args(SetMethod):
            raise ConfigError(f"is unknown; choose {' or '.join(get_args(SetMethod))}", sets=self.sets)
        for name, least in (("num_images", 2), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"is below {least}", **{name: getattr(self, name)})


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """Labelled images that a classifier has answered.

    Attributes:
        logits: (n, c), as the model gives them.
        labels: (n,).
    """

    logits: Array
    labels: Labels


def fit_trust(run: Run | str | Path, config: TrustConfig | None = None, *, progress: bool = False) -> TrustFile:
    """Fit temperature, sets of classes and the outlier score, check them, and write ``run.trust`` and its picture.

    The validation images also chose the epoch that was kept, so that the model is a little better on them than on
    others. Where there are test images, everything is checked on these; otherwise on validation images in turns.

    Args:
        run: run with weights, or its folder.
        config: what is wanted.
        progress: show bars.

    Raises:
        RunError: the run takes no images, or has no validation images.
        DataError: its images are gone, or cannot be decoded.
        ConfigError: a temperature is wanted of a task that chooses no class.
    """
    return _fit_run(Run.open(as_run(run).folder), config or TrustConfig(), progress=progress)


@writes
def _fit_run(run: Run, config: TrustConfig, *, progress: bool) -> TrustFile:
    task = load_task(run)
    task.temperature = 1.0
    if not task.takes_images:
        raise RunError(f"run {run.folder} takes no images; there is nothing to trust or to distrust")
    if config.use_temperature and not task.per_image:
        raise ConfigError("needs a task that gives each image one class", use_temperature=True)
    data = load_run_data(run, progress=progress)
    if not len(data.val):
        raise RunError(
            f"run {run.folder} has no validation images to fit on; train it with some, such as --val-fraction 0.2"
        )
    values, arrays, figures = _fit(task, data, run, config, progress=progress)
    file = write_trust(run, values, arrays)
    save_figures(figures, run.figures)
    _keep_temperature(run, file, config.use_temperature)
    return file


def _fit(
    task: Task, data: DataSplits[Any], run: Run, config: TrustConfig, *, progress: bool
) -> tuple[dict[str, Any], Arrays, dict[str, Any]]:
    """Entries of the JSON, arrays, and pictures."""
    how = run.read().preprocessing
    score, num_train = _fit_score(task, data.train, run, config, progress=progress)
    val, looks, _ = usable_pictures(_pictures(task, data.val), progress=progress)
    if not len(val):
        raise RunError(f"none of the validation images of {run.folder} can be decoded any more; restore them")
    features, logits = answer_pictures(task, val, how, batch_size=config.batch_size, progress=progress)
    test_features, tested = _answer_test(task, data, run, config, progress=progress)
    classes: dict[str, Any] | None = None
    arrays: Arrays = {}
    figures: dict[str, Any] = {}
    temperature = 1.0
    notes = _notes(len(val), config, classifies=logits is not None)
    if logits is not None:
        score = score.scaled(features, logits)
        fitted = Answered(logits=logits, labels=val.labels.numpy())
        classes, arrays, told = _fit_classes(fitted, tested, config)
        temperature, notes = classes["temperature"], (*notes, *told)
        if classes["after"] is not None:
            figures["trust"] = trust_figure(classes["before"], classes["after"])
    seen = seen_of(looks, features, logits, score, temperature)
    threshold = float(np.quantile(seen.numbers["outlier_score"], VALIDATION_SHARE, method="higher"))
    above = None if test_features is None else _share_above(score, test_features, tested, threshold)
    kept = np.sort(np.random.default_rng(config.seed).permutation(len(seen))[:MOST_SEEN])
    arrays |= seen_arrays(seen.taken(kept)) | {f"{OUTLIER}{name}": one for name, one in score.arrays.items()}
    outlier = {"threshold": threshold, "num_train": num_train, "test_above": above}
    values = {"num_val": len(val), "classes": classes, "outlier": outlier, "notes": notes}
    return values, arrays, figures


def _share_above(
    score: OutlierScore, features: NDArray[np.float32], answered: Answered | None, threshold: float
) -> float:
    scores = score(features, None if answered is None else answered.logits)
    return float((scores > threshold).mean())


def _pictures(task: Task, samples: Samples) -> ImageSet:
    """The image files of samples, with their classes where each has one."""
    return cast("ImageSet", samples) if task.per_image else pictures_of(samples)


def _fit_score(
    task: Task, train: Samples, run: Run, config: TrustConfig, *, progress: bool
) -> tuple[OutlierScore, int]:
    """The outlier score of a draw of the training images, and their number."""
    pictures = _pictures(task, train).sample(config.num_images, config.seed)
    if not len(pictures):
        raise RunError(f"none of the training images of {run.folder} is left, to which others can be compared")
    how = run.read().preprocessing
    features = features_of_pictures(task, pictures, how, batch_size=config.batch_size, progress=progress)
    labels = pictures.labels.numpy() if task.per_image else np.zeros(len(features), np.int64)
    return fit_outlier_score(features, labels), len(features)


def _answer_test(
    task: Task, data: DataSplits[Any], run: Run, config: TrustConfig, *, progress: bool
) -> tuple[NDArray[np.float32] | None, Answered | None]:
    """Features and answers of the test images; None where there are none."""
    if data.test is None or not len(data.test):
        return None, None
    how = run.read().preprocessing
    if not task.per_image:
        pictures = pictures_of(data.test)
        return features_of_pictures(task, pictures, how, batch_size=config.batch_size, progress=progress), None
    given: dict[str, Any] = {"batch_size": config.batch_size, "title": "Answering test images", "progress": progress}
    found = answer_images(task, data.test, how, **given)
    return found.features, Answered(logits=found.outputs, labels=data.test.labels.numpy())


def _fit_classes(
    val: Answered, test: Answered | None, config: TrustConfig
) -> tuple[dict[str, Any], Arrays, tuple[str, ...]]:
    """Temperature and sets: entries of the JSON, arrays, and sentences on what is weak."""
    require_logits(val.logits)
    temperature = fit_temperature(val.logits, val.labels)
    low, high = coverage_spread(len(val.labels), config.coverage)
    entry: dict[str, Any] = {
        "temperature": temperature,
        "coverage": config.coverage,
        "method": config.sets,
        "low": low,
        "high": high,
        "checked_on": "",
        "before": None,
        "after": None,
    }
    probabilities = probabilities_of(val.logits, temperature)
    arrays = {f"{MISFITS}{one}": _true_misfits(probabilities, val.labels, one) for one in get_args(SetMethod)}
    if test is not None and len(test.labels) >= FEWEST_CHECKED:
        entry |= {"checked_on": "test"} | _check([(val, test)], config)
    elif len(val.labels) >= FEWEST_CHECKED:
        entry |= {"checked_on": "folds"} | _check(_folds(val, config.seed), config)
    return entry, arrays, _class_notes(entry)


def _true_misfits(probabilities: Array, labels: Labels, method: SetMethod) -> Array:
    return np.sort(misfits(probabilities, method)[np.arange(len(labels)), labels])


def _folds(val: Answered, seed: int) -> list[tuple[Answered, Answered]]:
    """Pairs of images to fit on and to check on; each image is checked once."""
    order = np.random.default_rng(seed).permutation(len(val.labels))
    parts = np.array_split(order, NUM_FOLDS)
    pairs = [(np.setdiff1d(order, part), part) for part in parts]
    return [
        (
            Answered(logits=val.logits[fit], labels=val.labels[fit]),
            Answered(logits=val.logits[held], labels=val.labels[held]),
        )
        for fit, held in pairs
    ]


def _check(pairs: list[tuple[Answered, Answered]], config: TrustConfig) -> dict[str, Any]:
    """What is fitted on the first of each pair, measured on the second, over all pairs together."""
    labels = np.concatenate([held.labels for _, held in pairs])
    before = np.concatenate([held.logits for _, held in pairs])
    temperatures = [fit_temperature(fit.logits, fit.labels) for fit, _ in pairs]
    after = np.concatenate([held.logits / one for (_, held), one in zip(pairs, temperatures, strict=True)])
    found: dict[str, Any] = {"top1": float((before.argmax(axis=1) == labels).mean()), "sets": {}}
    for name, logits in (("before", before), ("after", after)):
        probabilities = probabilities_of(logits)
        found[name] = {
            "ece": asdict(calibration_error(probabilities, labels, seed=config.seed)),
            "loss": mean_loss(logits, labels),
            "bins": [asdict(one) for one in bins_of(probabilities, labels)],
        }
    for method in get_args(SetMethod):
        sets = []
        for (fit, held), one in zip(pairs, temperatures, strict=True):
            known = _true_misfits(probabilities_of(fit.logits, one), fit.labels, method)
            fits = misfits(probabilities_of(held.logits, one), method)
            sets.append(sets_of(fits, bound_of(known, config.coverage)))
        found["sets"][method] = asdict(check_sets(np.concatenate(sets), labels))
    return found


def _notes(num_val: int, config: TrustConfig, *, classifies: bool) -> tuple[str, ...]:
    """Sentences on few images."""
    notes = []
    if classifies and num_val < fewest_images(config.coverage):
        notes.append(
            f"{num_val} validation images are too few for a coverage of {share_text(config.coverage)}: every set has "
            f"all classes; it takes {fewest_images(config.coverage)}, or a lower --coverage"
        )
    elif classifies and num_val < FEW_IMAGES:
        low, high = coverage_spread(num_val, config.coverage)
        notes.append(
            f"{num_val} validation images are few: by chance, the coverage of the sets may be anywhere between "
            f"{share_text(low, 0)} and {share_text(high, 0)}"
        )
    if num_val < FEW_IMAGES and not classifies:
        notes.append(f"{num_val} validation images are few: the threshold of the outlier score is rough")
    return tuple(notes)


def _class_notes(entry: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if not entry["checked_on"]:
        notes.append(f"nothing could be checked: that takes {FEWEST_CHECKED} test images, or as many validation images")
    elif entry["sets"]["lac"]["empty"] > 0 and entry["method"] == "lac":
        notes.append(
            f"{share_text(entry['sets']['lac']['empty'])} of the sets are empty: the most probable class alone is "
            f"right in {share_text(entry['top1'])}; a higher --coverage, or --sets raps, leaves fewer"
        )
    elif entry["method"] == "raps" and entry["top1"] > entry["coverage"]:
        notes.append(
            f"every set has the most probable class, which alone is right in {share_text(entry['top1'])}, so that the "
            f"sets cover about that; a higher --coverage, or --sets lac, covers what is asked"
        )
    return tuple(notes)


def _keep_temperature(run: Run, file: TrustFile, wanted: bool | None) -> None:
    """Note in ``run.json`` what logits are divided by, as it is wanted or as it was."""
    used = run.read().temperature
    if wanted or (wanted is None and used is not None and file.classes is not None):
        assert file.classes is not None
        entry = {"value": file.classes.temperature, "num_images": file.num_val, "weights_hash": run.weights_hash}
        run.update(temperature=entry)
    elif wanted is False and used is not None:
        run.update(temperature=None)
