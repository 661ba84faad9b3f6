"""Answers to images without labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from vitrail.core.errors import ConfigError, DataError
from vitrail.core.files import atomic_path
from vitrail.core.progress import track
from vitrail.core.types import PixelRange, Preprocessing
from vitrail.data import IMAGE_SUFFIXES, MAX_PIXELS, decode_image, find_images, left_out, libjpeg_words
from vitrail.evaluation.contact_sheet import contact_sheet
from vitrail.tasks import Answers, Task, answers_of

MOST_SHOWN = 10
"""Images on each half of the contact sheet."""

SHEET = "contact_sheet.png"


@dataclass(frozen=True, kw_only=True)
class AnswerTrust:
    """How far the answer to an image can be trusted; None for what was not asked for.

    Attributes:
        classes: a set that holds the right class in the share of images that was asked for; it may be empty.
        outlier_score: high for images unlike those of the training.
        unusual: whether the score is above that of 95 % of the validation images.
    """

    classes: tuple[str, ...] | None = None
    outlier_score: float | None = None
    unusual: bool | None = None


@dataclass(frozen=True)
class Prediction:
    """What the task answered to one image, and perhaps how far that can be trusted."""

    path: Path
    answer: Any
    trust: AnswerTrust | None = None


@dataclass(frozen=True)
class SkippedImage:
    """A file, and why it has no answer, or one that may be wrong; ``path`` may be a folder with several such files."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Predictions:
    """The answers of a task.

    Attributes:
        images: answers in the order of the images, or of the task's ranking.
        skipped: files that could not be decoded, or that folders have beside their images.
        answers: shows, writes and draws the answers.
        damaged: files among ``images`` that were decoded, but are damaged inside.
    """

    images: tuple[Prediction, ...]
    skipped: tuple[SkippedImage, ...]
    answers: Answers[Any, Any]
    damaged: tuple[SkippedImage, ...] = ()


def predict_images(
    task: Task,
    paths: Iterable[str | Path],
    preprocessing: Preprocessing,
    *,
    top_k: int | None = None,
    batch_size: int = 32,
    max_pixels: int = MAX_PIXELS,
    pictures: Path | None = None,
    progress: bool = False,
) -> Predictions:
    """Answer for image files.

    Args:
        task: run in evaluation mode, on its own device.
        paths: image files, or folders, which are searched for images at any depth.
        preprocessing: what the task expects.
        top_k: how many things an answer may name; the task's own number by default.
        batch_size: images at once; at most so many are in memory.
        max_pixels: larger images are skipped.
        pictures: folder for a picture of every answer that can be drawn, named as the image, and for
            ``contact_sheet.png``, the best and the worst images, where the task ranks them.
        progress: show a bar.

    Raises:
        ConfigError: ``top_k`` or ``batch_size`` below 1.
        DataError: a folder without images, or no paths at all.
    """
    for name, number in (("top_k", top_k), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise ConfigError("is below 1", **{name: number})
    (files, skipped), answers = image_files(paths), answers_of(task)
    predictions: list[Prediction] = []
    damaged: list[SkippedImage] = []
    steps = range(0, len(files), batch_size)
    was_training = task.training
    task.eval()
    for start in track(steps, "Predicting", progress=progress):
        decoded = _decode(files[start : start + batch_size], max_pixels, preprocessing.pixel_range, skipped, damaged)
        if decoded:
            found = answers.predict(list(decoded.values()), preprocessing, top_k)
            predictions += [Prediction(path, answer) for path, answer in zip(decoded, found, strict=True)]
            if pictures is not None:
                _draw(answers, decoded, found, pictures)
    task.train(was_training)
    keys = [answers.rank(prediction.answer) for prediction in predictions]
    if keys and None not in keys:
        order = sorted(range(len(keys)), key=lambda i: -keys[i])  # type: ignore[operator]  # none is None
        predictions = [predictions[i] for i in order]
        if pictures is not None:
            _write_sheet(answers, predictions, pictures, max_pixels, preprocessing.pixel_range)
    return Predictions(images=tuple(predictions), skipped=tuple(skipped), answers=answers, damaged=tuple(damaged))


def _write_sheet(
    answers: Answers[Any, Any],
    ranked: list[Prediction],
    folder: Path,
    max_pixels: int,
    pixel_range: PixelRange | None,
) -> None:
    """Images are decoded once more, because the best of a million are known only at the end."""

    def drawn(chosen: list[Prediction]) -> list[Tensor]:
        images = [(decode_image(one.path, max_pixels, pixel_range), one.answer) for one in chosen]
        return [image if (shown := answers.draw(image, answer)) is None else shown for image, answer in images]

    count = min(MOST_SHOWN, -(-len(ranked) // 2))
    sheet = contact_sheet(drawn(ranked[:count]), drawn(ranked[count:][-count:]))
    with atomic_path(folder / SHEET) as temporary:
        sheet.save(temporary)


def image_files(paths: Iterable[str | Path]) -> tuple[list[Path], list[SkippedImage]]:
    """The files of files and folders, each once, in the order of its first mention, and what folders have beside them.

    Raises:
        DataError: a folder has no images, or there are no paths.
    """
    files: dict[Path, None] = {}
    skipped: dict[Path, SkippedImage] = {}
    for path in map(Path, paths):
        found = find_images(path) if path.is_dir() else [path]
        beside = [(path / one.path, one.reason) for one in left_out(path)] if path.is_dir() else []
        if not found:
            seen = "".join(f"; {file} {reason}" for file, reason in beside[:1])
            raise DataError(f"folder {path} has no images{seen}; known are {' '.join(sorted(IMAGE_SUFFIXES))}")
        files |= dict.fromkeys(found)
        skipped |= {file: SkippedImage(file, f"{file}: {reason}") for file, reason in beside}
    if not files:
        raise DataError("there are no images to look at; name image files or folders")
    return list(files), list(skipped.values())


def _decode(
    files: list[Path],
    max_pixels: int,
    pixel_range: PixelRange | None,
    skipped: list[SkippedImage],
    damaged: list[SkippedImage],
) -> dict[Path, Tensor]:
    decoded = {}
    for file in files:
        try:
            with libjpeg_words() as words:
                decoded[file] = decode_image(file, max_pixels, pixel_range)
        except DataError as error:
            skipped.append(SkippedImage(file, str(error)))
        else:
            damaged += [SkippedImage(file, f"{file} is damaged inside ({one})") for one in words[:1]]
    return decoded


def _draw(answers: Answers[Any, Any], decoded: dict[Path, Tensor], found: list[Any], folder: Path) -> None:
    """Images of the same name in several folders get numbers."""
    for (path, image), answer in zip(decoded.items(), found, strict=True):
        picture = answers.draw(image, answer)
        if picture is None:
            raise ConfigError(
                f"answers of the task '{answers.task.name}' are words, which need no pictures; leave out --out"
            )
        target, count = folder / f"{path.stem}.png", 1
        while target.exists():
            count += 1
            target = folder / f"{path.stem}-{count}.png"
        with atomic_path(target) as temporary:
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(temporary)
