"""Where a student and its teacher answer alike, and where they differ most."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

import torch

from vitrail.core.errors import VitrailError
from vitrail.core.files import finite_only
from vitrail.core.paths import typed_path
from vitrail.core.progress import track
from vitrail.data import DataSplits, eval_loader
from vitrail.runs.open_teacher import open_teacher
from vitrail.runs.run import Run
from vitrail.tasks import Task
from vitrail.tasks.findings.findings import Table
from vitrail.tasks.teacher import Teacher
from vitrail.training.distillation.choose_lessons import differing_outputs, place_of

LOG = logging.getLogger(__name__)

COMPARING = "Asking the teacher"
MOST_IMAGES = 12
"""Images in the table of the largest differences."""


def teacher_findings(
    run: Run, task: Task, data: DataSplits[Any], *, batch_size: int, progress: bool = False
) -> dict[str, Any]:
    """``numbers`` and ``tables`` for the findings of an evaluation: agreement by class, and the held-out images that
    differ most.

    Nothing where the run has no teacher, or one whose outputs mean something else. A teacher that cannot be
    opened any more is told in a warning.

    Args:
        run: run of the student.
        task: the student, in evaluation mode.
        data: its images.
        batch_size: images at once.
        progress: show a bar.
    """
    description = run.read()
    config = description.training.distill
    if config.teacher is None or task.only_taught:
        return {}
    try:
        teacher = open_teacher(config, task, description.preprocessing)
    except VitrailError as error:
        told = "the teacher of %s cannot be opened, so that its answers are not compared: %s"
        LOG.warning(told, typed_path(run.folder), error)
        return {}
    if differing_outputs(task, teacher):
        return {}
    found = _compare(task, teacher, data, run, batch_size=batch_size, progress=progress)
    tables = [_by_class(task, data, found) if task.per_image else _altogether(found), _differing(task, data, found)]
    numbers = {"teacher_agreement": mean(one.alike for one in found)}
    if task.per_image:
        labels = data.held_out.labels.tolist()
        numbers["teacher_right"] = mean(one.teacher == label for one, label in zip(found, labels, strict=True))
    return {"numbers": numbers, "tables": [finite_only(asdict(one)) for one in tables]}


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Answers to an image.

    Attributes:
        alike: agreement of the two, from 0 to 1.
        apart: distance of the two, as the task's usual lesson has it at temperature 1.
        student, teacher: their classes, where each image has one.
    """

    alike: float
    apart: float
    student: int = -1
    teacher: int = -1


def _compare(
    task: Task, teacher: Teacher, data: DataSplits[Any], run: Run, *, batch_size: int, progress: bool
) -> list[_Pair]:
    """Both answers to every held-out image; maps are not kept."""
    preprocessing, found = run.read().preprocessing, []
    imitation = next(iter(task.imitations().values()))
    places = [place_of(name, teacher.classes) for name in task.classes]
    chosen = [place for place in places if place is not None]
    same = not task.classes or chosen == list(range(len(teacher.classes)))
    device = next(task.parameters()).device
    for batch in track(eval_loader(data.held_out, preprocessing, batch_size=batch_size), COMPARING, progress=progress):
        with torch.inference_mode():
            own = task(preprocessing.normalize(batch.images.to(device))).float().cpu()
            shown = teacher.show(batch.images).output
            assert shown is not None
            other = shown if same else task.choose_classes(shown, chosen)
            for pair in zip(own.split(1), other.split(1), strict=True):
                classes = {"student": int(pair[0].argmax()), "teacher": int(pair[1].argmax())} if task.per_image else {}
                found.append(_Pair(alike=task.agreement(*pair), apart=float(imitation(*pair, 1.0)), **classes))
    return found


def _by_class(task: Task, data: DataSplits[Any], found: Sequence[_Pair]) -> Table:
    """Of each class, how often each is right and how often they say the same."""
    rows: list[tuple[Any, ...]] = []
    labels = data.held_out.labels.tolist()
    for index, name in [(None, "all"), *enumerate(task.classes)]:
        mine = [(one, label) for one, label in zip(found, labels, strict=True) if index in (None, label)]
        if mine:
            student = mean(one.student == label for one, label in mine)
            teacher = mean(one.teacher == label for one, label in mine)
            rows.append((name, len(mine), student, teacher, mean(one.alike for one, _ in mine)))
    columns = {"class": "text", "images": "count", "student": "percent", "teacher": "percent", "same answer": "percent"}
    return Table(title="Student and teacher: right answers, and the same answers", columns=columns, rows=rows)


def _altogether(found: Sequence[_Pair]) -> Table:
    return Table(
        title="Student and teacher",
        columns={"images": "count", "same answer": "percent"},
        rows=[(len(found), mean(one.alike for one in found))],
    )


def _differing(task: Task, data: DataSplits[Any], found: Sequence[_Pair]) -> Table:
    """The images whose answers differ most."""
    order = sorted(range(len(found)), key=lambda index: (-found[index].apart, index))[:MOST_IMAGES]
    names, classes = data.held_out.names, task.classes
    rows: list[tuple[Any, ...]]
    if task.per_image:
        columns = {"image": "text", "class": "text", "student": "text", "teacher": "text", "distance": "number"}
        labels = data.held_out.labels.tolist()
        rows = [
            (names[i], classes[labels[i]], classes[found[i].student], classes[found[i].teacher], found[i].apart)
            for i in order
        ]
    else:
        columns = {"image": "text", "distance": "number", "same answer": "percent"}
        rows = [(names[i], found[i].apart, found[i].alike) for i in order]
    return Table(title="Images where student and teacher differ most", columns=columns, rows=rows)
