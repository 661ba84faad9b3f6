"""The teacher of a training, from a run, a name, a file of weights, or an ONNX file."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from vitrail.core.errors import CheckpointError, ConfigError
from vitrail.core.files import read_text
from vitrail.core.paths import user_path
from vitrail.core.types import Preprocessing
from vitrail.models import Backbone, create_model
from vitrail.models.registry import is_model
from vitrail.models.timm_model import PREFIX
from vitrail.runs.load import load_task
from vitrail.runs.onnx_teacher import OnnxTeacher
from vitrail.runs.run import Run
from vitrail.tasks import Task
from vitrail.tasks.classification import ClassificationTask
from vitrail.tasks.teacher import Teacher
from vitrail.training.distillation.config import DistillConfig
from vitrail.training.distillation.module_teacher import ModuleTeacher

SAME = "same"
"""Value of ``teacher_classes`` for the names of the data."""


def open_teacher(config: DistillConfig, task: Task, preprocessing: Preprocessing) -> Teacher:
    """The teacher that a configuration names.

    Args:
        config: with a ``teacher``.
        task: the student.
        preprocessing: what the student expects, for the size of a teacher that takes any.

    Raises:
        ConfigError: it is none of what a teacher can be, or does not fit the options.
        RunError, CheckpointError, UnknownNameError: it cannot be opened.
    """
    named = config.teacher
    assert named is not None
    device = None if config.teacher_device is None else _device(config.teacher_device)
    known = named.startswith(PREFIX) or is_model(named)
    path = user_path(named)
    if not known and path.is_dir() and config.teacher_model is None:
        return _of_run(path, device)
    if not known and path.name == "model.safetensors" and (path.parent / "run.json").is_file():
        return _of_run(path.parent, device)
    if not known and path.suffix.lower() == ".onnx":
        return _of_onnx(path, config, task, preprocessing)
    if not known and config.teacher_model is None:
        raise ConfigError(
            "is no run folder, no timm:NAME, no ONNX file; for a file of weights give --teacher-model too"
            if path.exists() or "://" in named
            else "does not exist; give a run folder, timm:NAME, weights with --teacher-model, or an ONNX file",
            teacher=named,
        )
    return _of_weights(named, config, task, device)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"cannot be used here: {str(error).splitlines()[0]}", teacher_device=name) from error
    return device


def _of_run(folder: Path, device: torch.device | None) -> ModuleTeacher:
    run = Run(folder)
    if not run.description.exists():
        raise ConfigError("is a folder without a run.json; give the folder of a trained run", teacher=folder)
    task = load_task(run)
    if not task.takes_images or not isinstance(task.backbone, Backbone):
        raise ConfigError(f"is a run of {task.name}, which takes no images", teacher=folder)
    return ModuleTeacher(
        f"{run.read().model.name} of {folder}",
        task.backbone,
        run.read().preprocessing,
        task=task,
        classes=task.classes,
        fingerprint=run.weights_hash,
        device=device,
    )


def _of_weights(named: str, config: DistillConfig, task: Task, device: torch.device | None) -> ModuleTeacher:
    """A model by name with its public weights, or with those of a file."""
    model, weights = (named, "pretrained") if config.teacher_model is None else (config.teacher_model, named)
    names = class_names(config.teacher_classes, task)
    count = len(names) if names else None
    size = config.teacher_image_size
    try:
        backbone = create_model(model, num_classes=count, image_size=size, weights=weights)
    except CheckpointError:
        # its maps can teach
        backbone = create_model(model, num_classes=0, image_size=size, weights=weights, replace_head=True)
        if names:
            raise ConfigError(
                f"names {count} classes, and the classifier of {named} has another number of outputs; leave it out to "
                "learn features",
                teacher_classes=config.teacher_classes,
            ) from None
    taught: Task | None = None
    if backbone.num_classes > 1 and task.name == ClassificationTask.name:
        taught = ClassificationTask(backbone, names or [str(index) for index in range(backbone.num_classes)])
    native = replace(backbone.preprocessing, image_size=backbone.config.image_size)
    changed = native.changed(mean=config.teacher_mean, std=config.teacher_std)
    return ModuleTeacher(
        model if weights == "pretrained" else f"{model} with {named}",
        backbone,
        changed,
        task=taught,
        classes=names,
        fingerprint=_fingerprint(backbone),
        device=device,
    )


def _of_onnx(path: Path, config: DistillConfig, task: Task, preprocessing: Preprocessing) -> OnnxTeacher:
    usual = Preprocessing(image_size=preprocessing.image_size)
    usual = usual.changed(mean=config.teacher_mean, std=config.teacher_std)
    threads = torch.get_num_threads()
    teacher = OnnxTeacher(path, usual, task_name=task.name, output=config.teacher_output, threads=threads)
    if names := class_names(config.teacher_classes, task):
        if teacher.num_outputs and len(names) != teacher.num_outputs:
            raise ConfigError(
                f"names {len(names)} classes, and the teacher has {teacher.num_outputs} outputs",
                teacher_classes=config.teacher_classes,
            )
        teacher.classes = names
    return teacher


def class_names(given: str | None, task: Task) -> tuple[str, ...]:
    """The names that ``teacher_classes`` stands for; empty without it.

    Raises:
        ConfigError: a name occurs twice, or a single name is no file.
    """
    if given is None:
        return ()
    if given == SAME:
        return task.classes
    path = user_path(given)
    if path.is_file():
        names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    else:
        names = [name.strip() for name in given.split(",")]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if len(names) < 2 or twice:
        told = f"has {twice[0]!r} twice" if twice else "is no file, and no two names"
        raise ConfigError(f"{told}; give a text file with one name a line, or names with commas", teacher_classes=given)
    return tuple(names)


def _fingerprint(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
