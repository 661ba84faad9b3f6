"""``evaluation.json``: accuracy of the model and of each exported file on the same images, with pictures.

The file holds all images of the report, so that the report needs no data set. Its contents::

    {"version": 1, "split": "test" | "val",
     "scores": [{"name", "title", "higher_is_better", "percent"}, ...], the main score first,
     "reports": {"torch-float": {...ClassificationReport.to_dict(), "agreement": 1.0, "file_hash": "..."},
                 "onnx-float": {...}, "onnx-int8": {...}, "openvino-float": {...}, "litert-float": {...}, ...},
     "stale": {"litert-float": reason of the omission, ...},
     "confidence": {"min_confidence", "f1", "num_images", "weights_hash"}, of detectors,
     "findings": what the answers of the weights say beside scores, see :func:`vitrail.evaluation.describe_findings`,
     "examples": [{"name", "label", "predicted", "probability", "jpeg_base64"}, ...],
     "data": {"source", "fingerprint", "classes", "counts": {"train": [one per class], ...}, "skipped",
              "samples": [{"name", "label", "jpeg_base64"}, ...]}}

For tasks with scores of all images together, ``reports`` has the results of :func:`vitrail.evaluation.measure`,
``examples`` has held-out images with their answers drawn over them (and ``truth_base64`` if the task can draw the
truth, ``difference_base64`` if it can draw mistakes, ``note``, and ``group``: "worst" or "best"), ``difference`` is the
caption of mistakes, and there are no ``counts``. ``agreement`` is the share of images for which the file and the
PyTorch model give the same class. ``file_hash`` identifies the file, so that an accuracy is never used for a later
file. "onnx" is a file in ONNX Runtime; every other runtime that takes the same file has a report of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.core.errors import BenchError
from vitrail.core.files import file_hash, write_json
from vitrail.core.progress import Whole
from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits
from vitrail.evaluation import describe_findings, evaluate, measure
from vitrail.evaluation.classification import EVALUATING
from vitrail.figures.evaluation import evaluation_figures
from vitrail.figures.save import save_figures
from vitrail.runs.data import load_run_data
from vitrail.runs.examples import class_examples, describe_classes, describe_data, drawn_examples
from vitrail.runs.export import unfit_reason
from vitrail.runs.load import load_task
from vitrail.runs.min_confidence import SEARCHING, keep_confidence
from vitrail.runs.run import Run, writes
from vitrail.runs.schema import VERSION
from vitrail.runs.teacher_agreement import COMPARING, teacher_findings
from vitrail.runtimes import MEASURED, RUNTIMES, import_runtime, open_session, predictor
from vitrail.tasks import Task, answers_of

WEIGHTS = "torch-float"
"""Name of the weights' report in ``evaluation.json``."""

Answers = Callable[[Tensor], Tensor]
"""Normalised images (b, c, h, w) to the raw output of a task."""


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """The inputs of an evaluation; see :func:`evaluate_run`."""

    task: Task
    data: DataSplits[Any]
    preprocessing: Preprocessing
    answers: dict[str, Answers]
    batch_size: int
    num_examples: int
    num_samples: int
    progress: bool


@writes
def evaluate_run(
    run: Run,
    *,
    data: DataSplits[Any] | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    num_examples: int = 14,
    num_samples: int = 20,
    progress: bool = False,
) -> dict[str, Any]:
    """Evaluate a run's PyTorch model and every exported file on the held-out images.

    Args:
        run: run with weights.
        data: images of the run. Default: the images of its configuration.
        batch_size: number of images at once.
        threads: number of threads of the runtimes. Default: as many as PyTorch uses.
        num_examples: number of pictures of wrong answers, and of right ones.
        num_samples: number of pictures of the training images.
        progress: show a bar for every evaluation.

    Returns:
        the contents of ``run.evaluation``; the file and its figures are written.

    Raises:
        RunError: the run has no weights.
        DataError: the images are missing, or have classes that the model lacks.
        BenchError: an exported file cannot be run.
    """
    description = run.read()
    data = load_run_data(run, progress=progress) if data is None else data.align(description.classes)
    task, (files, stale) = load_task(run), _evaluated_files(run)
    whole = whole_evaluation(task, data, 1 + len(files), taught=description.teacher is not None)
    with whole:
        confidence = keep_confidence(run, task, data, progress=progress)
    job = EvaluationJob(
        task=task,
        data=data,
        preprocessing=description.preprocessing,
        answers={WEIGHTS: _eager(task)} | _sessions(files, threads or torch.get_num_threads()),
        batch_size=batch_size,
        num_examples=num_examples,
        num_samples=num_samples,
        progress=progress,
    )
    values: dict[str, Any] = {
        "version": VERSION,
        "split": "val" if data.test is None else "test",
        "scores": [asdict(score) for score in task.scores],
    }
    with whole:
        values |= evaluate_classes(job) if task.per_image else evaluate_all(job)
        values["findings"] = _with_teacher(values["findings"], run, job)
    values |= ({"stale": stale} if stale else {}) | ({"confidence": confidence.model_dump()} if confidence else {})
    for name, report in values["reports"].items():
        report["file_hash"] = file_hash(run.weights if name == WEIGHTS else files[name][1])
    write_json(run.evaluation, values)
    save_figures(evaluation_figures(values["reports"][WEIGHTS]), run.figures)
    return values


def _with_teacher(findings: dict[str, Any], run: Run, job: EvaluationJob) -> dict[str, Any]:
    """Findings of the task with the numbers and tables on its teacher, if it had one."""
    more = teacher_findings(run, job.task, job.data, batch_size=job.batch_size, progress=job.progress)
    if not more:
        return findings
    numbers, tables = findings.get("numbers", {}), findings.get("tables", ())
    return findings | {"numbers": numbers | more["numbers"], "tables": [*tables, *more["tables"]]}


def whole_evaluation(task: Task, data: DataSplits[Any], num_predictors: int, *, taught: bool = False) -> Whole:
    """The works of an evaluation as a whole."""
    passes = num_predictors if task.per_image else 1  # other tasks show each batch to all of them
    count = float(len(data.held_out))
    asked = [(COMPARING, 2 * count)] * taught
    return Whole([(SEARCHING, float(len(data.val))), *[(EVALUATING, count)] * passes, *asked])


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
    findings = job.task.findings()
    if findings is not None:
        findings.update(logits[WEIGHTS], data.held_out.labels)
    return {
        "reports": reports,
        "findings": describe_findings(findings) if findings else {},
        "examples": class_examples(data.held_out, logits[WEIGHTS], classes, job.num_examples),
        "data": describe_classes(data, job.num_samples),
    }


def evaluate_all(job: EvaluationJob) -> dict[str, Any]:
    """Reports, examples and data of a task whose scores belong to all images together."""
    findings = job.task.findings()
    reports = measure(
        job.task,
        job.answers,
        job.data.held_out,
        job.preprocessing,
        batch_size=job.batch_size,
        progress=job.progress,
        findings=findings,
    )
    return {
        "reports": reports,
        "findings": describe_findings(findings) if findings else {},
        "examples": drawn_examples(job.task, job.data.held_out, job.preprocessing, job.num_examples, findings),
        "difference": answers_of(job.task).difference,
        "data": describe_data(job.data),
    }


class _Kept:
    """A predictor that keeps its outputs on the CPU."""

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


def _sessions(files: dict[str, tuple[str, Path]], threads: int) -> dict[str, Answers]:
    return {name: predictor(open_session(file, runtime, threads)) for name, (runtime, file) in files.items()}


def exported_files(run: Run) -> dict[str, tuple[str, Path]]:
    """Name in ``reports`` -> (runtime, file), for every file of the run in every runtime of the bench that takes it."""
    files: dict[str, tuple[str, Path]] = {}
    for runtime in MEASURED:
        if (format := RUNTIMES[runtime].format) is not None:
            for variant in run.variants() if format == "onnx" else ["float"]:
                files[report_key(runtime, variant)] = runtime, run.exported(format, variant)
    return {name: (runtime, file) for name, (runtime, file) in files.items() if file.exists()}


def report_key(runtime: str, variant: str) -> str:
    """The name in ``reports`` of a file in a runtime.

    Programs on other devices have the name of ONNX Runtime: their answers are compared with its before they are timed.
    """
    known = RUNTIMES.get(runtime)
    own = known is not None and known.device == "cpu" and runtime != "onnxruntime"
    return f"{runtime if own else 'onnx'}-{variant}"


def _evaluated_files(run: Run) -> tuple[dict[str, tuple[str, Path]], dict[str, str]]:
    """The exported files that can be evaluated here, and the reasons of those that must not be."""
    files, stale = {}, {}
    for name, (runtime, file) in exported_files(run).items():
        if reason := unfit_reason(run, file, runtime):
            stale[name] = reason
            continue
        try:
            import_runtime(runtime)
        except BenchError:  # the runtime is not installed
            continue
        files[name] = runtime, file
    return files, stale
