"""Images with opinions: a mean score, the votes, or both.

``scores.csv``, beside the images or their folder ``images/``: a column ``image`` and

- ``score_LOW_to_HIGH`` (or ``mean_score_LOW_to_HIGH``), such as ``score_1_to_9``; a plain ``score`` is from 1 to 10;
- and/or ``votes_1``, ``votes_2``, ...: how many people gave each score; the numbers are the scores;
- ``split`` (train, val, test), where the data decides.

``AVA.txt`` as its authors publish it (Murray et al., CVPR 2012): number, image id, ten counts, tags; images ``ID.jpg``.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torchvision.transforms import v2

from vitrail.core.errors import DataError
from vitrail.core.types import Preprocessing
from vitrail.data.annotations import Problems, as_splits
from vitrail.data.check import check_files
from vitrail.data.listing import PART_NAMES, leads_inside
from vitrail.data.load import DataConfig
from vitrail.data.samples import Samples, Transform
from vitrail.data.splits import DataSplits
from vitrail.data.transforms import AugmentConfig, fit_image, interpolation_mode

SCORE = re.compile(r"(?:mean_)?score(?:_(\d+)_to_(\d+))?")
VOTES = re.compile(r"votes_(\d+)")
AVA_LEVELS = tuple(range(1, 11))
MOST_LEVELS = 20
"""Scales of more whole numbers than these are learnt in ten bins."""

REMEDY = "it needs the columns image and score_LOW_to_HIGH (such as score_1_to_10), votes_1, votes_2, ..., or both"

ScoreTarget = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What people say of an image.

    Attributes:
        score: their mean.
        votes: how many gave each of the scale's scores; empty where only the mean is known.
    """

    score: float
    votes: tuple[float, ...] = ()


@dataclass
class _Listed:
    scale: tuple[float, ...]
    names: list[str] = field(default_factory=list)
    opinions: list[Opinion] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)


class ScoreSet(Samples):
    """Images with opinions.

    Attributes:
        opinions: one an image.
        scale: the scores that votes may have, or the bins that are learnt where only means are known.
    """

    def __init__(
        self,
        names: Sequence[str],
        sources: Sequence[Path],
        opinions: Sequence[Opinion],
        scale: Sequence[float],
        **settings: Any,
    ) -> None:
        super().__init__(names, sources, **settings)
        self.opinions = list(opinions)
        self.scale = tuple(scale)

    def target(self, index: int) -> ScoreTarget:
        """``score``, the mean, and ``distribution`` (bins,), the shares of the votes; where there are no votes, the
        mean lies between its two neighbours on the scale."""
        opinion = self.opinions[index]
        scale = torch.tensor(self.scale)
        if opinion.votes:
            votes = torch.tensor(opinion.votes)
            return {"score": torch.tensor(opinion.score), "distribution": votes / votes.sum()}
        distance = (scale - opinion.score).abs() / (scale[1] - scale[0])
        return {"score": torch.tensor(opinion.score), "distribution": (1 - distance).clamp(min=0)}

    def fit(self, image: Tensor, target: ScoreTarget, preprocessing: Preprocessing) -> tuple[Tensor, ScoreTarget]:
        """The image resized and cropped in the centre."""
        return fit_image(image, preprocessing), target

    def train_transform(self, preprocessing: Preprocessing, augment: AugmentConfig) -> Transform:
        """Random crops and mirror images; other colours would deserve another score."""
        hflip = augment.hflip if augment.hflip is not None else (0.5 if self.mirrored_alike else 0.0)
        change = v2.Compose(
            [
                v2.RandomResizedCrop(
                    list(preprocessing.image_size),
                    scale=augment.random_resized_crop_scale,
                    ratio=augment.random_resized_crop_ratio,
                    interpolation=interpolation_mode(preprocessing),
                    antialias=True,
                ),
                v2.RandomHorizontalFlip(hflip),
            ]
        )
        return partial(_image_alone, change)

    def collate(self, targets: list[ScoreTarget]) -> ScoreTarget:
        """``score`` (b,), ``distribution`` (b, bins)."""
        return {name: torch.stack([target[name] for target in targets]) for name in ("score", "distribution")}

    def subset(self, indices: Sequence[int]) -> Self:
        """The images at ``indices``, in that order."""
        chosen = super().subset(indices)
        chosen.opinions = [self.opinions[i] for i in indices]
        return chosen

    def renumber(self, table: Tensor) -> Self:
        """The same: there are no classes."""
        return self


def _image_alone(change: v2.Transform, image: Tensor, target: ScoreTarget) -> tuple[Tensor, ScoreTarget]:
    return change(image), target


def load_scores(config: DataConfig, *, progress: bool = False) -> DataSplits[ScoreSet]:
    """The images of ``scores.csv`` or ``AVA.txt`` in ``config.path``.

    Rows that are wrong (a score outside of the scale, votes that are no numbers or none at all, a missing image, an
    image that occurs twice) are listed with their line and refuse the data, or are left out with
    ``bad_annotations="skip"``.

    Raises:
        DataError: unreadable or wrong data, too many broken images, or scores that are all the same.
    """
    root = Path(config.path).expanduser().resolve()
    table, ava = root / "scores.csv", root / "AVA.txt"
    problems = Problems(config)
    if table.is_file():
        listed = _read_csv(table, problems)
    elif ava.is_file():
        listed = _read_ava(ava, problems)
    else:
        raise DataError(f"{config.path} has neither scores.csv nor AVA.txt; {REMEDY}")
    checks = check_files(root, listed.names, max_pixels=config.max_pixels, progress=progress)
    problems.check_images(listed.names, checks)
    problems.settle(len(listed.names))
    good = [i for i, name in enumerate(listed.names) if name not in problems.names]
    if len({listed.opinions[i].score for i in good}) < 2:
        raise DataError(f"all {len(good)} images of {config.path} have the same score; there is nothing to tell apart")
    total = hashlib.sha256(repr(listed.scale).encode())
    for i in sorted(good, key=lambda i: listed.names[i]):
        total.update(f"{listed.names[i]}\0{checks[i].digest}\0{listed.opinions[i]}\n".encode("utf-8", "replace"))
    every = ScoreSet(
        [listed.names[i] for i in good],
        [root / listed.names[i] for i in good],
        [listed.opinions[i] for i in good],
        listed.scale,
        max_pixels=config.max_pixels,
    )
    parts = [listed.parts[i] for i in good]
    return as_splits(every, parts, config, classes=(), fingerprint=total.hexdigest(), skipped=problems.listed())


def _read_csv(table: Path, problems: Problems) -> _Listed:
    rows = _rows(table)
    columns = list(rows[0])
    mean = next((match for name in columns if (match := SCORE.fullmatch(name))), None)
    levels = sorted(int(match[1]) for name in columns if (match := VOTES.fullmatch(name)))
    if "image" not in columns or (mean is None and not levels):
        raise DataError(f"{table} has the columns {', '.join(columns)}; {REMEDY}")
    if levels and (len(levels) < 2 or levels != list(range(levels[0], levels[-1] + 1))):
        raise DataError(f"{table} has votes for the scores {levels}; name every score from the lowest to the highest")
    scale = tuple(float(level) for level in levels) or _scale(table, mean)
    listed = _Listed(scale)
    for number, row in enumerate(rows, start=2):
        where = f"{table.name} line {number}"
        try:
            opinion = _opinion(row, mean[0] if mean else None, levels, scale)
            name, part = _locate(table.parent, row["image"]), _part(row.get("split", ""))
        except ValueError as error:
            problems.add(where, str(error))
            continue
        listed.names.append(name)
        listed.opinions.append(opinion)
        listed.parts.append(part)
    _drop_repeated(listed, table, problems)
    return listed


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [
                {key.strip(): (value or "").strip() for key, value in row.items() if isinstance(key, str)}
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read ({error}); save it as comma-separated UTF-8") from error
    if not rows:
        raise DataError(f"{table} has no rows; {REMEDY}")
    return rows


def _scale(table: Path, mean: re.Match[str] | None) -> tuple[float, ...]:
    """Whole numbers where they are few, else ten bins."""
    low, high = (int(mean[1]), int(mean[2])) if mean is not None and mean[1] else (1, 10)
    if low >= high:
        raise DataError(f"{table} has scores from {low} to {high}; the first number must be the lower one")
    count = high - low + 1 if high - low < MOST_LEVELS else 10
    return tuple(low + (high - low) * i / (count - 1) for i in range(count))


def _opinion(row: Mapping[str, str], column: str | None, levels: Sequence[int], scale: Sequence[float]) -> Opinion:
    """
    Raises:
        ValueError: with the reason, where the row says nothing sensible.
    """
    votes = tuple(_number(row, f"votes_{level}") for level in levels)
    if any(vote < 0 for vote in votes):
        raise ValueError(f"votes {', '.join(f'{vote:g}' for vote in votes)}: none can be below 0")
    if votes and sum(votes) == 0:
        raise ValueError("nobody has voted")
    if column is None:
        return Opinion(score=_mean(votes, scale), votes=votes)
    score = _number(row, column)
    if not scale[0] <= score <= scale[-1]:
        raise ValueError(f"score {score:g} is outside of {scale[0]:g} to {scale[-1]:g}")
    return Opinion(score=score, votes=votes)


def _number(row: Mapping[str, str], column: str) -> float:
    try:
        value = float(row.get(column) or "missing")
    except ValueError:
        raise ValueError(f"{column} '{row.get(column) or ''}' is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{column} '{row[column]}' is not a number")
    return value


def _mean(votes: Sequence[float], scale: Sequence[float]) -> float:
    return sum(vote * score for vote, score in zip(votes, scale, strict=True)) / sum(votes)


def _part(value: str) -> str:
    if value and value.lower() not in PART_NAMES:
        raise ValueError(f"split '{value}' is not one of train, val, test")
    return PART_NAMES[value.lower()] if value else ""


def _locate(root: Path, image: str) -> str:
    for folder in (root / "images", root):
        path = folder / image
        if image and path.is_file():
            if not leads_inside(path, root):
                raise ValueError(f"image '{image}' lies outside of the folder")
            return path.relative_to(root).as_posix()
    raise ValueError(f"image '{image}' is missing")


def _read_ava(file: Path, problems: Problems) -> _Listed:
    """A line an image: number, id, counts of the scores 1 to 10, two tags, challenge."""
    listed = _Listed(tuple(float(level) for level in AVA_LEVELS))
    for where, words in _ava_lines(file):
        try:
            if len(words) < 2 + len(AVA_LEVELS):
                raise ValueError(f"{len(words)} numbers; number, image id and ten counts are needed")
            row = {f"votes_{level}": words[1 + level] for level in AVA_LEVELS}
            opinion = _opinion(row, None, AVA_LEVELS, listed.scale)
            name = _locate(file.parent, f"{words[1]}.jpg")
        except ValueError as error:
            problems.add(where, str(error))
            continue
        listed.names.append(name)
        listed.opinions.append(opinion)
        listed.parts.append("")
    _drop_repeated(listed, file, problems)
    return listed


def _ava_lines(file: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}); save it as plain text") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{file.name} line {number}", line.split()


def _drop_repeated(listed: _Listed, table: Path, problems: Problems) -> None:
    for name, count in Counter(listed.names).items():
        if count > 1:
            problems.add(name, f"occurs {count} times in {table.name}")
