"""Which level of a student learns from which level of its teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vitrail.core.types import FeatureInfo
from vitrail.tasks.heads.pyramid import choose_levels

MOST_PAIRS = 4
Pair = tuple[int, int]
"""(level of the student, level of the teacher)"""


def _is_plain(levels: Sequence[FeatureInfo]) -> bool:
    return len({level.stride for level in levels}) == 1


def _taught(levels: Sequence[FeatureInfo]) -> list[int]:
    """Levels of a student that learn: the last of each stride, or blocks at equal distances in a plain model."""
    if not _is_plain(levels):
        return choose_levels(levels, MOST_PAIRS)
    count = min(MOST_PAIRS, len(levels))
    return [math.ceil((i + 1) * len(levels) / count) - 1 for i in range(count)]


def pair_levels(student: Sequence[FeatureInfo], teacher: Sequence[FeatureInfo]) -> list[Pair]:
    """Level by level: the teacher's last level of the nearest stride; in a plain teacher the block at the same share of
    its depth."""
    chosen = _taught(student)
    if _is_plain(teacher):
        return [(own, math.ceil((own + 1) * len(teacher) / len(student)) - 1) for own in chosen]
    last = choose_levels(teacher, len(teacher))
    return [(own, min(last, key=lambda other: _apart(student[own], teacher[other]))) for own in chosen]


def pair_last(student: Sequence[FeatureInfo], teacher: Sequence[FeatureInfo]) -> list[Pair]:
    """The teacher's last level, and the student's deepest level of the nearest stride."""
    other = len(teacher) - 1
    own = min(reversed(range(len(student))), key=lambda index: _apart(student[index], teacher[other]))
    return [(own, other)]


def _apart(student: FeatureInfo, teacher: FeatureInfo) -> float:
    """Distance of two strides, in doublings; a finer teacher is nearer than a coarser one."""
    doublings = math.log2(teacher.stride / student.stride)
    return abs(doublings) + (0.1 if doublings > 0 else 0.0)
