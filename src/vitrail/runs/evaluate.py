"""``evaluation.json``: how accurate the model and each of its exported files are, on the same images, with pictures.

The file holds all that the page needs of images, so that a report can be written where the data is not.
Its contents::

    {"split": "test" | "val",
     "scores": [{"name", "title", "higher_is_better", "percent"}, ...], the task's, the one that decides first,
     "reports": {"torch-float": {...ClassificationReport.to_dict(), "agreement": 1.0, "file_hash": "..."},
                 "onnx-float": {...}, "onnx-int8": {...}, "litert-float": {...}, ...},
     "stale": {"litert-float": why the file was left out, ...},
     "examples": [{"name", "label", "predicted", "probability", "jpeg_base64"}, ...],
     "data": {"source", "fingerprint", "classes", "counts": {"train": [one a class], ...}, "skipped",
              "samples": [{"name", "label", "jpeg_base64"}, ...]}}

Tasks in which no single image is right or wrong have in ``reports`` what :func:`vitrail.evaluation.measure` gives, in
``examples`` the held-out images with their answers drawn over them (``truth_base64`` beside it where the task can draw
the truth), and no ``counts``. ``agreement`` is the share of images to which the file and the PyTorch model give the
same class; ``file_hash`` identifies the file, so that an accuracy is never taken for that of a later file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.core.errors import BenchError
from vitrail.core.files import file_hash, write_json
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, DataSplits
from vitrail.evaluation import evaluate, evaluate_task, measure
from vitrail.figures.evaluation import evaluation_figures
from vitrail.figures.save import save_figures
from vitrail.models import create_model
from vitrail.runs.data import load_run_data
from vitrail.runs.examples import class_examples, describe_classes, describe_data, drawn_examples
from vitrail.runs.export import stale_reason
from vitrail.runs.load import load_task
from vitrail.runs.run import Run
from vitrail.runtimes import MEASURED, RUNTIMES, import_runtime, open_session, predictor
from vitrail.tasks import DEFAULT_TASK, Task, TaskSpec, find_task

WEIGHTS = "torch-float"
"""Name of the weights' report in ``evaluation.json``."""

Answers = Callable[[Tensor], Tensor]
"""Normalised images (b, c, h, w) to the raw output of a task."""


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """What is evaluated, and how much of it is kept as pictures; see :func:`evaluate_run`."""

    task: Task
    data: DataSplits[Any]
    preprocessing: Preprocessing
    answers: dict[str, Answers]
    batch_size: int
    num_examples: int
    num_samples: int
    progress: bool


def evaluate_run(
    run: Run,
    *,
    data: DataSplits[Any] | None = None,
    batch_size: int = 64,
    threads: int = 1,
    num_examples: int = 14,
    num_samples: int = 20,
    progress: bool = False,
) -> dict[str, Any]:
    """Evaluate a run's PyTorch model and every exported file on the held-out images.

    Args:
        run: with weights.
        data: the run's images; loaded as its configuration says by default.
        batch_size: images at once.
        threads: number of threads of the runtimes.
        num_examples: number of pictures of wrong answers, and of right ones.
        num_samples: number of pictures of the training images.
        progress: show a bar for every evaluation.

    Returns:
        the contents of ``run.evaluation``, which is written, as are its figures; see the head of this file.

    Raises:
        RunError: the run has no weights.
        DataError: the images are gone, or have classes that the model does not know.
        BenchError: an exported file cannot be run.
    """
    description = run.read()
    data = load_run_data(run, progress=progress) if data is None else data.align(description.classes)
    task = load_task(run)
    files, stale = _evaluated_files(run)
    job = EvaluationJob(
        task=task,
        data=data,
        preprocessing=description.preprocessing,
        answers={WEIGHTS: _eager(task)}
        | {name: predictor(open_session(file, runtime, threads)) for name, (runtime, file) in files.items()},
        batch_size=batch_size,
        num_examples=num_examples,
        num_samples=num_samples,
        progress=progress,
    )
    values: dict[str, Any] = {
        "split": "val" if data.test is None else "test",
        "scores": [asdict(score) for score in task.scores],
    }
    values |= evaluate_classes(job) if task.per_image else evaluate_all(job)
    values |= {"stale": stale} if stale else {}
    for name, report in values["reports"].items():
        report["file_hash"] = file_hash(run.weights if name == WEIGHTS else files[name][1])
    write_json(run.evaluation, values)
    save_figures(evaluation_figures(values["reports"][WEIGHTS]), run.figures)
    return values


def evaluate_classes(job: EvaluationJob) -> dict[str, Any]:
    """Reports, examples and data of a task in which each image is right or wrong."""
    data, classes = job.data, job.data.classes
    logits: dict[str, Tensor] = {}
    reports: dict[str, dict[str, Any]] = {}
    for name, answers in job.answers.items():
        kept = _Kept(answers)
        report = evaluate(
            kept, data.held_out, job.preprocessing, classes, batch_size=job.batch_size, progress=job.progress
        )
        logits[name] = torch.cat(kept.logits)
        reports[name] = report.to_dict() | {"agreement": job.task.agreement(logits[name], logits[WEIGHTS])}
    return {
        "reports": reports,
        "examples": class_examples(data.held_out, logits[WEIGHTS], classes, job.num_examples),
        "data": describe_classes(data, job.num_samples),
    }


def evaluate_all(job: EvaluationJob) -> dict[str, Any]:
    """Reports, examples and data of a task whose scores belong to all images together."""
    reports = measure(
        job.task,
        job.answers,
        job.data.held_out,
        job.preprocessing,
        batch_size=job.batch_size,
        progress=job.progress,
    )
    examples = drawn_examples(job.task, job.data.held_out, job.preprocessing, job.num_examples)
    return {"reports": reports, "examples": examples, "data": describe_data(job.data)}


class _Kept:
    """A predictor that remembers its outputs, on the CPU."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.logits: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        answer = self.answers(images)
        self.logits.append(answer.detach().float().cpu())
        return answer


def _eager(task: Task) -> Answers:
    def answers(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return task(images)

    return answers


def exported_files(run: Run) -> dict[str, tuple[str, Path]]:
    """Name in ``reports`` -> (runtime, file), for every file of the run that a runtime of the bench takes."""
    files = {f"onnx-{variant}": ("onnxruntime", run.onnx(variant)) for variant in run.variants()}
    for runtime in MEASURED:
        if (format := RUNTIMES[runtime].format) not in (None, "onnx"):
            files[f"{runtime}-float"] = runtime, run.exported(format)
    return {name: (runtime, file) for name, (runtime, file) in files.items() if file.exists()}


def _evaluated_files(run: Run) -> tuple[dict[str, tuple[str, Path]], dict[str, str]]:
    """The exported files that can be evaluated here, and why others were made from other weights."""
    files, stale = {}, {}
    for name, (runtime, file) in exported_files(run).items():
        if reason := stale_reason(run, file):
            stale[name] = reason
            continue
        try:
            import_runtime(runtime)
        except BenchError:  # an optional extra; on this machine the file cannot be evaluated
            continue
        files[name] = runtime, file
    return files, stale


@dataclass(frozen=True, kw_only=True)
class PreprocessingChanges:
    """Preprocessing that differs from the model's own.

    Attributes:
        mean, std: numbers that are subtracted from the pixels (0 to 1) and that divide them: one number, or one a
            channel; by default the model's own.
        crop_fraction: share of the shorter side that is kept; by default the model's own.
        interpolation: filter for resizing; by default the model's own.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_fraction: float | None = None
    interpolation: str | None = None

    def applied(self, preprocessing: Preprocessing) -> Preprocessing:
        """``preprocessing`` with these changes; one number stands for all three channels."""
        given: dict[str, Any] = {name: value for name, value in asdict(self).items() if value is not None}
        for name in ("mean", "std"):
            if len(given.get(name, ())) == 1:
                given[name] = given[name] * 3
        return replace(preprocessing, **given)


def evaluate_elsewhere(
    run: Run, path: str, changes: PreprocessingChanges, *, batch_size: int = 64, progress: bool = False
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Evaluate a run's weights on all images of another folder; the run is not changed.

    Returns:
        the report, and "path: reason" of every image that was skipped.

    Raises:
        DataError: the folder is no data set of the task, or has classes that the model does not know.
    """
    data = load_run_data(run, other=path, progress=progress)
    preprocessing = changes.applied(run.read().preprocessing)
    report = evaluate_task(load_task(run), data.held_out, preprocessing, batch_size=batch_size, progress=progress)
    return report, data.skipped


def evaluate_weights(
    model: str,
    weights: str,
    data: DataConfig,
    changes: PreprocessingChanges,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Evaluate a classifier's weights file that belongs to no run.

    Args:
        model: name that ``vitrail models`` lists.
        weights: file or address, as for :func:`vitrail.create_model`.
        data: labelled images; all of them are evaluated.
        changes: preprocessing that differs from the model's own.
        image_size: pixels a side, or (height, width); the model's own by default.
        batch_size: images at once.
        progress: show bars.

    Returns:
        the report, and "path: reason" of every image that was skipped.

    Raises:
        DataError: no such data.
        CheckpointError: the weights do not fit the model or the classes.
    """
    kind = find_task(DEFAULT_TASK)
    splits = kind.load_data(data, progress=progress)
    spec = TaskSpec(classes=splits.classes)
    backbone = create_model(
        model, num_classes=kind.num_outputs(spec), image_size=image_size, weights=weights, replace_head=False
    )
    task = kind.create(backbone, spec).eval()
    preprocessing = changes.applied(replace(backbone.preprocessing, image_size=backbone.config.image_size))
    report = evaluate_task(task, splits.held_out, preprocessing, batch_size=batch_size, progress=progress)
    return report, splits.skipped
