"""The lessons of a training with a teacher: what ``run.json`` and the first lines tell of them."""

from __future__ import annotations

from typing import Any

from vitrail.core.errors import ConfigError, RunError
from vitrail.core.paths import user_path
from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits
from vitrail.runs.description import Description, TeacherEntry
from vitrail.runs.onnx_teacher import OnnxTeacher
from vitrail.runs.open_teacher import open_teacher
from vitrail.runs.run import Run
from vitrail.tasks import Task
from vitrail.tasks.teacher import Teacher
from vitrail.training.config import ResolvedConfig
from vitrail.training.distillation.answer_cache import AnswerCache, Shapes, cache_path, forget_answers
from vitrail.training.distillation.choose_lessons import differing_outputs, make_distiller
from vitrail.training.distillation.config import DistillConfig
from vitrail.training.distillation.distiller import Distiller


def teach(
    config: ResolvedConfig,
    task: Task,
    preprocessing: Preprocessing,
    run: Run,
    begun: Description | None,
) -> tuple[Distiller | None, list[str]]:
    """The lessons of the teacher, if there is one, and sentences on it.

    Args:
        config: every choice of the training.
        task: the student.
        preprocessing: what the student expects of an image.
        run: the student's run.
        begun: description of the training that goes on, if one does.

    Raises:
        ConfigError: the teacher cannot be opened or used, or lies in the folder of its student.
        RunError: the training was begun with another teacher.
    """
    if config.distill.teacher is None:
        if task.only_taught:
            raise ConfigError(f"task {task.name} learns from a teacher alone; give --teacher")
        return None, []
    if config.recipe == "probe":
        raise ConfigError("fits a linear probe alone, which learns from labels; leave out --teacher", recipe="probe")
    if run.folder.resolve() in (path := user_path(config.distill.teacher).resolve(), *path.parents):
        raise ConfigError("lies in the run folder; give the student another one", teacher=config.distill.teacher)
    distiller = make_distiller(config.distill, task, open_teacher(config.distill, task, preprocessing))
    entry = _teacher_entry(distiller)
    if begun is not None and begun.teacher is not None and begun.teacher.fingerprint != entry.fingerprint:
        raise RunError(
            f"the teacher {config.distill.teacher} has other weights than when this training began; restore them to "
            "--resume, or pass --overwrite to start again"
        )
    lines = teacher_lines(config.distill, distiller.teacher, list(entry.lessons), task)
    return distiller, lines


def note_weights(run: Run, distiller: Distiller) -> str:
    """Keep in ``run.json`` what the lessons were multiplied by, and tell it; "" where no batch was seen."""
    entry = run.read().teacher
    if entry is None or not int(distiller.count):
        return ""
    scales = distiller.scales.tolist()
    weights = {lesson.name: round(scale, 4) for lesson, scale in zip(distiller.lessons, scales, strict=True)}
    run.update(teacher=entry.model_dump() | {"weights": weights})
    shown = ", ".join(f"{name} {value:.3g}" for name, value in weights.items())
    return f"Weights of the lessons, from the first {int(distiller.count)} batches: {shown}"


def _teacher_entry(distiller: Distiller) -> TeacherEntry:
    teacher = distiller.teacher
    return TeacherEntry(
        title=teacher.title,
        fingerprint=teacher.fingerprint,
        num_params=teacher.num_params,
        lessons=tuple(lesson.name for lesson in distiller.lessons),
    )


def note_teacher(
    run: Run,
    distiller: Distiller,
    config: ResolvedConfig,
    splits: DataSplits[Any],
    preprocessing: Preprocessing,
    *,
    first: bool,
) -> str:
    """Keep in ``run.json`` who teaches what, and let the distiller keep the teacher's answers if that is wanted.

    Args:
        run: the student's run, which is described.
        distiller: the lessons.
        config: every choice of the training.
        splits: its images.
        preprocessing: what the student expects of an image.
        first: whether this process writes the run.

    Returns:
        how large the answers are; "" where none are kept.

    Raises:
        ConfigError: the disk has not the room.
        VitrailError: the file cannot be written.
    """
    if first:
        run.update(teacher=_teacher_entry(distiller).model_dump())
    if not config.distill.cache_teacher:
        return ""
    teacher, size, views = distiller.teacher, preprocessing.image_size, config.distill.cache_teacher
    shapes = Shapes.of(teacher, size, distiller.teacher_levels, output=distiller.wants_output)
    facts = [teacher.fingerprint, splits.fingerprint, len(splits.train), config.seed, config.augment, size, views]
    path = cache_path(run.checkpoints, [*facts, config.distill, shapes])
    forget_answers(run.checkpoints, but=path)
    cache = AnswerCache(path, shapes, num_views=views, num_images=len(splits.train))
    distiller.cache = cache
    return (
        f"The teacher's answers to {views} view{'s' * (views != 1)} of each image are kept until the training is done: "
        f"{cache.size_bytes / 1e6:.1f} MB in the run folder"
    )


def teacher_lines(config: DistillConfig, teacher: Teacher, lessons: list[str], task: Task) -> list[str]:
    """Sentences that tell who teaches what, and what is odd about it."""
    size = f", {teacher.num_params:,} parameters" if teacher.num_params else ""
    beside = "" if task.only_taught else " beside the labels"
    lines = [f"Teacher: {teacher.title}{size}; it teaches {', '.join(lessons)}{beside}"]
    if isinstance(teacher, OnnxTeacher):
        if not teacher.described and config.teacher_mean is None:
            lines.append(
                f"WARNING: {teacher.title} does not say how its images are normalised; ImageNet's mean and deviation "
                "are taken; --teacher-mean and --teacher-std say others"
            )
        if teacher.probabilities:
            lines.append(f"The output of {teacher.title} is probabilities; their logarithms are imitated")
    if not config.teach and "logits" not in lessons and not task.only_taught:
        lines.append(f"The teacher's output is not taught: {differing_outputs(task, teacher)}")
    own = sum(one.numel() for one in task.parameters())
    if 0 < teacher.num_params < own:
        lines.append(f"The teacher has {teacher.num_params:,} parameters, fewer than the student's {own:,}")
    return lines
