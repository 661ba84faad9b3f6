"""Which lessons a teacher gives to a student, and which it cannot."""

from __future__ import annotations

from collections.abc import Sequence

from vitrail.core.errors import ConfigError
from vitrail.tasks import ClassificationTask, Task
from vitrail.tasks.teacher import Teacher
from vitrail.training.distillation.attention_lesson import AttentionLesson
from vitrail.training.distillation.config import DistillConfig, LessonName
from vitrail.training.distillation.distiller import Distiller
from vitrail.training.distillation.features_lesson import FeaturesLesson
from vitrail.training.distillation.lesson import Lesson
from vitrail.training.distillation.levels import pair_last, pair_levels
from vitrail.training.distillation.logits_lesson import LogitsLesson, PooledLesson

SHOWN = 5
"""Names in a message."""


def make_distiller(config: DistillConfig, task: Task, teacher: Teacher) -> Distiller:
    """The lessons that are asked for, or those that suit the two.

    Raises:
        ConfigError: the teacher cannot teach what is asked for, with the reason.
    """
    if not task.teachable or not task.takes_images:
        raise ConfigError(f"task {task.name} learns from no teacher; leave it out", teacher=config.teacher)
    names = config.teach or usual_lessons(task, teacher)
    lessons = [_make_lesson(name, config, task, teacher) for name in names]
    task.taught = any(isinstance(lesson, LogitsLesson) for lesson in lessons)
    return Distiller(teacher, lessons)


def usual_lessons(task: Task, teacher: Teacher) -> tuple[LessonName, ...]:
    """Raw outputs where they mean the same in both, else maps.

    Raises:
        ConfigError: the teacher has neither.
    """
    if task.only_taught:
        return ("features",) if teacher.levels else ("logits",)
    if not (reason := differing_outputs(task, teacher)):
        return ("logits",)
    if teacher.levels and task.backbone.feature_info:
        return ("features",)
    raise ConfigError(f"the teacher has no maps, and its output teaches nothing here: {reason}", teacher=teacher.title)


def differing_outputs(task: Task, teacher: Teacher) -> str:
    """Why the raw outputs of student and teacher cannot be compared; "" where they can."""
    if not task.imitations():
        return f"the outputs of this {task.name} are not comparable in training"
    if not teacher.task_name:
        return f"{teacher.title} has no output of its own"
    if teacher.task_name != task.name:
        return f"{teacher.title} has learnt {teacher.task_name}, not {task.name}"
    if teacher.task is not None and (reason := task.differs_from(teacher.task)):
        return reason
    if not task.classes:
        return ""
    if not teacher.classes:
        return f"{teacher.title} does not name its classes; give --teacher-classes"
    missing = [name for name in task.classes if place_of(name, teacher.classes) is None]
    if not missing:
        return ""
    shown = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
    return (
        f"{teacher.title} lacks the class{'es' * (len(missing) > 1)} {shown}; it has "
        f"{', '.join(teacher.classes[:SHOWN])}{', ...' * (len(teacher.classes) > SHOWN)}"
    )


def place_of(name: str, classes: Sequence[str]) -> int | None:
    """Place of a class in a list by its name, else by its name without case, spaces, hyphens and underscores where that
    is in the list once; None where it is not."""
    if classes.count(name) == 1:
        return classes.index(name)
    plain = [_plain(one) for one in classes]
    return plain.index(_plain(name)) if plain.count(_plain(name)) == 1 and name not in classes else None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter not in " _-")


def _make_lesson(name: LessonName, config: DistillConfig, task: Task, teacher: Teacher) -> Lesson:
    """
    Raises:
        ConfigError: the teacher cannot give it.
    """
    if name not in ("features", "tokens", "attention"):
        return _output_lesson(name, config, task, teacher)
    student = task.backbone.feature_info
    for title, levels in (("the teacher", teacher.levels), ("the student", student)):
        if not levels:
            raise ConfigError(f"needs maps, and {title} has none; choose logits", teach=name)
    if name == "attention":
        return AttentionLesson(pair_levels(student, teacher.levels))
    pairs = (pair_levels if name == "features" else pair_last)(student, teacher.levels)
    weighs = teacher.task if teacher.task is not None and teacher.task.bounds == "object" else None
    return FeaturesLesson(
        name,
        pairs,
        student,
        teacher.levels,
        distance=config.feature_distance,
        importance=None if weighs is None else weighs.importance,
    )


def _output_lesson(name: LessonName, config: DistillConfig, task: Task, teacher: Teacher) -> Lesson:
    if task.only_taught:
        return _pooled_lesson(name, config, task, teacher)
    known = task.imitations()
    if reason := differing_outputs(task, teacher):
        remedy = "choose features" if teacher.levels else "choose another teacher"
        raise ConfigError(f"is not possible: {reason}; {remedy}", teach=name)
    if name not in known:
        raise ConfigError(f"is not for the task {task.name}; it has {', '.join(known)}, features", teach=name)
    places = [place_of(one, teacher.classes) for one in task.classes]
    same = places == list(range(len(teacher.classes)))
    chosen = None if same else [place for place in places if place is not None]
    return LogitsLesson(name, known[name], task, chosen, config.temperature)


def _pooled_lesson(name: LessonName, config: DistillConfig, task: Task, teacher: Teacher) -> PooledLesson:
    if name != "logits":
        raise ConfigError("needs labels of the student's own; choose logits, features or tokens", teach=name)
    if not teacher.num_outputs:
        raise ConfigError(f"is not possible: {teacher.title} has no output of one vector an image", teach=name)
    probabilities = teacher.task_name == ClassificationTask.name
    return PooledLesson(task.backbone.num_features, teacher.num_outputs, config.temperature if probabilities else None)
