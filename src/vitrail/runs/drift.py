"""Do new images differ from those that a run was validated on? It needs the run, and no image of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError, DataError, VitrailError
from vitrail.core.files import file_hash
from vitrail.core.paths import user_path
from vitrail.data import ImageSet, LabelledImage
from vitrail.evaluation.predict import image_files
from vitrail.evaluation.trust.data_drift import FEWEST, Difference, Seen, answer_shares, differences
from vitrail.runs.load import as_run, load_task
from vitrail.runs.parts import read_parts
from vitrail.runs.run import Run
from vitrail.runs.seen_images import answer_pictures, seen_of, usable_pictures
from vitrail.runs.telling import share_text
from vitrail.runs.trust_file import read_trust

WORDS = {
    "brightness": ("darker", "brighter"),
    "contrast": ("of less contrast", "of more contrast"),
    "sharpness": ("more blurred", "sharper"),
    "size": ("smaller", "larger"),
    "aspect": ("nearer to a square", "longer"),
    "confidence": ("answered with less confidence", "answered with more confidence"),
    "outlier_score": ("more like the training images", "less like the training images"),
}
"""Number of an image -> what new images are whose numbers are lower, or higher."""

SHARES = ("brightness", "contrast", "confidence")
"""Numbers from 0 to 1."""

MOST_CLASSES = 3
"""Classes that the verdict names."""


@dataclass(frozen=True, kw_only=True)
class DriftConfig:
    """The configuration of ``vitrail drift``.

    Attributes:
        strict: Exit with status 2 where the images differ by more than chance, after everything is written.
        batch_size: Number of images at once; changes speed, never the result.
        seed: Random seed of the tests.
    """

    strict: bool = False
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        convert_fields(self)
        if self.batch_size < 1:
            raise ConfigError("is below 1", batch_size=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class NewImage:
    """A new image.

    Attributes:
        file: its path.
        outlier_score: how unlike the training images it is.
        unusual: whether 95 % of the validation images have a lower score.
        answer: the most probable class; "" where the task chooses none.
        numbers: its light, size and so on.
    """

    file: str
    outlier_score: float
    unusual: bool
    answer: str
    numbers: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What new images are like beside those of the validation.

    Attributes:
        verdict: one sentence.
        sentences: what differs, and what is weak.
        differences: every test; empty where there are too few images.
        images: the new images, the most unusual first.
        num_before: number of validation images that the run knows.
        share_unusual: share of the new images that 95 % of the validation images are below.
        skipped: files that could not be decoded, with the reason.
    """

    verdict: str
    sentences: tuple[str, ...]
    differences: tuple[Difference, ...]
    images: tuple[NewImage, ...]
    num_before: int
    share_unusual: float
    skipped: tuple[str, ...]

    @property
    def found(self) -> bool:
        """Whether something differs by more than chance."""
        return any(one.found for one in self.differences)

    def require_none(self) -> None:
        """
        Raises:
            DataError: the images differ, or are too few to tell.
        """
        if self.found or not self.differences:
            raise DataError(f"{self.verdict} {' '.join(self.sentences)}".strip())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        tests = [asdict(one) | {"found": one.found} for one in self.differences]
        return asdict(self) | {"found": self.found, "differences": tests}


def measure_drift(
    run: Run | str | Path,
    sources: Sequence[str | Path] | str | Path,
    config: DriftConfig | None = None,
    *,
    progress: bool = False,
) -> Drift:
    """Compare new images with what ``vitrail trust`` kept of the validation images.

    Args:
        run: run of :func:`vitrail.runs.trust.fit_trust`, or its folder.
        sources: an image file or a folder, or several; folders are searched for images at any depth.
        config: what is wanted.
        progress: show bars.

    Raises:
        RunError: nothing was fitted for the run's present weights.
        DataError: there are no images, or none can be decoded.
    """
    config, run = config or DriftConfig(), as_run(run)
    trust, description = read_trust(run), run.read()
    files, beside = image_files([user_path(one) for one in ([sources] if isinstance(sources, str | Path) else sources)])
    task = load_task(run)
    task.temperature = 1.0
    how = description.preprocessing
    records = [LabelledImage(name=str(file), source=file, label=0) for file in files]
    pictures = ImageSet(records=records, pixel_range=how.pixel_range)
    pictures, looks, undecodable = usable_pictures(pictures, progress=progress)
    if not len(pictures):
        raise DataError(f"none of the {len(files)} images can be decoded; the first is {files[0]}")
    features, logits = answer_pictures(task, pictures, how, batch_size=config.batch_size, progress=progress)
    temperature = 1.0 if trust.file.classes is None else trust.file.classes.temperature
    now = seen_of(looks, features, logits, trust.outlier_score, temperature)
    images = _rows(pictures.names, now, description.classes, trust.file.outlier.threshold)
    tests: list[Difference] = []
    if min(len(now), len(trust.seen)) >= FEWEST:
        tests = differences(trust.seen, now, num_classes=len(description.classes), seed=config.seed)
    share = sum(image.unusual for image in images) / len(images)
    skipped = [one.reason for one in beside] + [f"{name} cannot be decoded" for name in undecodable]
    return Drift(
        verdict=_verdict(tests, len(now), len(trust.seen)),
        sentences=(*_sentences(tests, trust.seen, now, share, description.classes), *_known(run, pictures)),
        differences=tuple(tests),
        images=images,
        num_before=len(trust.seen),
        share_unusual=share,
        skipped=tuple(skipped),
    )


def _rows(names: Sequence[str], now: Seen, classes: Sequence[str], threshold: float) -> tuple[NewImage, ...]:
    scores = now.numbers["outlier_score"]
    return tuple(
        NewImage(
            file=names[index],
            outlier_score=float(scores[index]),
            unusual=bool(scores[index] > threshold),
            answer="" if now.answers is None else classes[now.answers[index]],
            numbers={name: float(values[index]) for name, values in now.numbers.items() if name != "outlier_score"},
        )
        for index in np.argsort(-scores, kind="stable").tolist()
    )


def _verdict(tests: Sequence[Difference], num_now: int, num_before: int) -> str:
    if not tests:
        kind, count = ("new", num_now) if num_now < FEWEST else ("validation", num_before)
        few = f"1 {kind} image is" if count == 1 else f"{count} {kind} images are"
        return f"{few} too few to tell a difference from chance; it takes {FEWEST}."
    if not any(one.found for one in tests):
        return f"No drift: {num_now} new images differ from {num_before} validation images by no more than chance."
    least = min(one.p for one in tests)
    certain = f"p {least:.2g}" if least >= 0.001 else "p below 0.001"
    return f"The {num_now} new images differ from the {num_before} validation images ({certain})."


def _sentences(
    tests: Sequence[Difference], before: Seen, now: Seen, share: float, classes: Sequence[str]
) -> tuple[str, ...]:
    """What differs, the outlier scores first."""
    found = {one.name: one for one in tests if one.found}
    sentences = [f"{share_text(share, 0)} lie beyond what 95 % of the validation images reach."]
    for name, one in found.items():
        if one.before is not None and one.now is not None:
            sentences.append(_number_sentence(name, one.before, one.now))
    if "answers" in found and before.answers is not None and now.answers is not None:
        first, second = answer_shares(before.answers, classes), answer_shares(now.answers, classes)
        changed = sorted(classes, key=lambda name: -abs(second[name] - first[name]))[:MOST_CLASSES]
        told = ", ".join(
            f"'{name}' {share_text(second[name], 0)} against {share_text(first[name], 0)}" for name in changed
        )
        sentences.append(f"Other classes are answered: {told}.")
    if list(found) == ["features"]:
        sentences.append("Only the features differ: the images show other things, or the same things in another way.")
    return tuple(sentences)


def _number_sentence(name: str, before: float, now: float) -> str:
    if abs(now - before) <= 0.02 * max(abs(now), abs(before)):
        return f"Their {name.replace('_', ' ')} is spread otherwise (median {now:.3g}, as before)."
    figures = f"{now:.2f} against {before:.2f}" if name in SHARES else f"{now:.3g} against {before:.3g}"
    return f"They are {WORDS[name][now > before]} (median {figures})."


def _known(run: Run, pictures: ImageSet) -> tuple[str, ...]:
    """A sentence where training images are among the new ones, which the model knows."""
    if not run.images.exists():
        return ()
    trained = {one.image for one in read_parts(run.images) if one.part == "train" and one.image}
    try:
        count = sum(file_hash(str(record.source)) in trained for record in pictures.records)
    except (OSError, VitrailError):  # a file has gone meanwhile
        return ()
    return (f"{count} of them are training images of the run, which its model knows.",) * bool(count)
