"""Scores and votes: ``scores.csv``, or ``AVA.txt``.

``scores.csv``, beside the images or their folder ``images/``: a column ``image`` and

- ``score_LOW_to_HIGH`` (or ``mean_score_LOW_to_HIGH``), such as ``score_1_to_9``; a plain ``score`` is from 1 to 10;
- and/or ``votes_1``, ``votes_2``, ...: how many people gave each score; the numbers are the scores;
- ``split`` (train, val, test), where the data decides.

``AVA.txt`` as its authors publish it (Murray et al., CVPR 2012): number, image id, ten counts, tags; images ``ID.jpg``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.data.check.problems import Problems
from vitrail.data.formats.csv_rows import (
    IMAGE_COLUMNS,
    PART_COLUMNS,
    find_listed,
    has_split,
    part_of_row,
    read_rows,
    read_text,
    rename_columns,
)
from vitrail.data.formats.layout import find_table, leads_inside
from vitrail.data.records import ScoredImage

SCORE = re.compile(r"(?:mean_)?score(?:_([0-9]+)_to_([0-9]+))?")
VOTES = re.compile(r"votes_([0-9]+)")
MAX_DIGITS = 9
"""Digits of the largest score that a column may name."""

AVA_LEVELS = tuple(range(1, 11))
MAX_LEVELS = 20
"""Scales of more whole numbers than these are learnt in ten bins."""

MOST_VOTES = 1e9

REMEDY = "it needs the columns image and score_LOW_to_HIGH (such as score_1_to_10), votes_1, votes_2, ..., or both"

Scored = tuple[tuple[float, ...], list[ScoredImage]]
"""The scale, and images in the order of the file."""


def read_scores(root: Path, problems: Problems) -> Scored:
    """The images of ``scores.csv``, or else of ``AVA.txt``; rows that are wrong are added to ``problems``.

    Raises:
        DataError: neither file, or one that cannot be read or lacks a column.
    """
    if (table := find_table(root, "scores.csv")) is not None:
        return _read_csv(table, problems)
    if (table := find_table(root, "AVA.txt")) is not None:
        return _read_ava(table, problems)
    raise DataError(f"{problems.config.path} has neither scores.csv nor AVA.txt; {REMEDY}")


def _read_csv(table: Path, problems: Problems) -> Scored:
    rows = rename_columns(table, read_rows(table, REMEDY), {"image": IMAGE_COLUMNS, "split": PART_COLUMNS})
    columns = list(rows[0][1])
    if long := [name for name in columns if re.search(f"[0-9]{{{MAX_DIGITS + 1}}}", name)]:
        raise DataError(
            f"{table} has the column {long[0]:.80}; numbers in names of columns have up to {MAX_DIGITS} digits"
        )
    mean = next((match for name in columns if (match := SCORE.fullmatch(name))), None)
    levels = sorted(int(match[1]) for name in columns if (match := VOTES.fullmatch(name)))
    if "image" not in columns or (mean is None and not levels):
        raise DataError(f"{table} has the columns {', '.join(columns)}; {REMEDY}")
    if levels and (len(levels) < 2 or levels[-1] - levels[0] != len(levels) - 1 or len(set(levels)) < len(levels)):
        raise DataError(f"{table} has votes for the scores {levels}; name every score from the lowest to the highest")
    scale = tuple(float(level) for level in levels) or _scale(table, mean)
    records = []
    named = has_split(rows)
    for number, row in rows:
        try:
            votes = _votes(row, levels)
            score = _mean(votes, scale) if mean is None else _score(row, mean[0], scale)
            name, part = _locate(table.parent, row["image"]), part_of_row(row) if named else ""
        except ValueError as error:
            problems.add(f"{table.name} line {number}", str(error))
            continue
        records.append(ScoredImage(name=name, source=table.parent / name, part=part, score=score, votes=votes))
    _drop_repeated(records, table, problems)
    return scale, records


def _scale(table: Path, mean: re.Match[str] | None) -> tuple[float, ...]:
    """Whole numbers where they are few, else ten bins."""
    low, high = (int(mean[1]), int(mean[2])) if mean is not None and mean[1] else (1, 10)
    if low >= high:
        raise DataError(f"{table} has scores from {low} to {high}; the first number must be the lower one")
    count = high - low + 1 if high - low < MAX_LEVELS else 10
    return tuple(low + (high - low) * i / (count - 1) for i in range(count))


def _votes(row: Mapping[str, str], levels: Sequence[int]) -> tuple[float, ...]:
    votes = tuple(_number(row, f"votes_{level}") for level in levels)
    if any(not 0 <= vote <= MOST_VOTES for vote in votes):
        listed = ", ".join(f"{vote:g}" for vote in votes)
        raise ValueError(f"votes {listed}: none can be below 0 or above {MOST_VOTES:g}")
    if votes and sum(votes) == 0:
        raise ValueError("nobody has voted")
    return votes


def _score(row: Mapping[str, str], column: str, scale: Sequence[float]) -> float:
    score = _number(row, column)
    if not scale[0] <= score <= scale[-1]:
        raise ValueError(f"score {score:g} is outside of {scale[0]:g} to {scale[-1]:g}")
    return score


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


def _locate(root: Path, image: str) -> str:
    path = find_listed(root, image)
    if path is None:
        raise ValueError(f"image '{image:.80}' is missing")
    if not leads_inside(path, root):
        raise ValueError(f"image '{image}' lies outside of the folder")
    return path.relative_to(root).as_posix()


def _read_ava(file: Path, problems: Problems) -> Scored:
    """A line an image: number, id, counts of the scores 1 to 10, two tags, challenge."""
    scale = tuple(float(level) for level in AVA_LEVELS)
    records = []
    for number, words in enumerate(map(str.split, read_text(file, "as its authors publish it").split("\n")), start=1):
        if not words:
            continue
        try:
            if len(words) < 2 + len(AVA_LEVELS):
                raise ValueError(f"{len(words)} numbers; number, image id and ten counts are needed")
            votes = _votes({f"votes_{level}": words[1 + level] for level in AVA_LEVELS}, AVA_LEVELS)
            name = _locate(file.parent, f"{words[1]}.jpg")
        except ValueError as error:
            problems.add(f"{file.name} line {number}", str(error))
            continue
        records.append(ScoredImage(name=name, source=file.parent / name, score=_mean(votes, scale), votes=votes))
    _drop_repeated(records, file, problems)
    return scale, records


def _drop_repeated(records: Sequence[ScoredImage], table: Path, problems: Problems) -> None:
    for name, count in Counter(record.name for record in records).items():
        if count > 1:
            problems.add(name, f"occurs {count} times in {table.name}")
