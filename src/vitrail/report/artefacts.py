"""``evaluation.json``: how accurate the model and each of its exported files are, on the same images, with pictures.

The file holds all that the page needs of images, so that a report can be written where the data is not.
Its contents::

    {"split": "test" | "val",
     "scores": [{"name", "title", "higher_is_better", "percent"}, ...], the task's, the one that decides first,
     "reports": {"torch-float": {...ClassificationReport.to_dict(), "agreement": 1.0, "file_hash": "..."},
                 "onnx-float": {...}, "onnx-int8": {...}, "litert-float": {...}, ...},
     "examples": [{"name", "label", "predicted", "probability", "jpeg_base64"}, ...],
     "data": {"source", "fingerprint", "classes", "counts": {"train": [one a class], ...}, "skipped",
              "samples": [{"name", "label", "jpeg_base64"}, ...]}}

Other tasks than classification have in ``reports`` what :func:`vitrail.evaluation.measure` gives, in ``examples`` the
held-out images with their answers drawn over them (``truth_base64`` beside it where the task can draw the truth), and
no ``counts``. ``agreement`` is the share of images to which the file and the PyTorch model give the same class;
``file_hash`` tells which file it was, so that nobody takes the accuracy for that of a file that was made later.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vitrail.core.errors import BenchError
from vitrail.core.files import file_hash, write_json
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits, ImageSet
from vitrail.evaluation import evaluate, measure
from vitrail.runs.bench import onnx_variants
from vitrail.runtimes import MEASURED, RUNTIMES, import_runtime, open_session, predictor
from vitrail.tasks import Task, load_task, task_of
from vitrail.training import TrainConfig

PICTURE_SIDE = 112
"""Pixels of the longer side of pictures in the page; a few kilobytes each."""

DRAWN_SIDE = 320
"""The same for answers that are drawn: a box or a border has to be seen."""

Answers = Callable[[Tensor], Tensor]


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
    """Evaluate a run's PyTorch model and every exported file on the held-out images, and write ``run.evaluation``.

    Args:
        run: with weights.
        data: the run's images; loaded as its configuration says by default.
        batch_size: images at once.
        threads: for ONNX Runtime.
        num_examples: pictures of wrong answers, and as many of right ones.
        num_samples: pictures of the training images.
        progress: show a bar for every evaluation.

    Returns:
        what was written; see the head of this file.

    Raises:
        RunError: the run has no weights.
        DataError: the images are gone, or have classes that the model does not know.
        BenchError: an exported file cannot be run.
    """
    description = run.read()
    kind = task_of(description)
    data = data or kind.load_data(TrainConfig.from_dict(description["training"]).data, progress=progress)
    data = data.align(description["classes"])
    look = Look(
        run=run,
        data=data,
        preprocessing=Preprocessing.from_dict(description["preprocessing"]),
        batch_size=batch_size,
        threads=threads,
        num_examples=num_examples,
        num_samples=num_samples,
        progress=progress,
    )
    values: dict[str, Any] = {
        "split": "val" if data.test is None else "test",
        "scores": [asdict(score) for score in kind.scores],
    }
    values |= DETAILED.get(kind.name, look_at_task)(look)
    for name, report in values["reports"].items():
        file = run.weights if name == "torch-float" else exported_files(run)[name][1]
        report["file_hash"] = file_hash(file) if file.exists() else ""
    write_json(run.evaluation, values)
    return values


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is evaluated, and how much of it is kept as pictures; see :func:`evaluate_run`."""

    run: Run
    data: DataSplits[Any]
    preprocessing: Preprocessing
    batch_size: int
    threads: int
    num_examples: int
    num_samples: int
    progress: bool


def look_at_classes(look: Look) -> dict[str, Any]:
    """Everything that is known of a classifier."""
    data, classes = look.data, look.data.classes
    logits: dict[str, Tensor] = {}
    reports: dict[str, dict[str, Any]] = {}
    for name, answers in _predictors(load_task(look.run).eval(), look).items():
        kept = _Kept(answers)
        report = evaluate(
            kept, data.held_out, look.preprocessing, classes, batch_size=look.batch_size, progress=look.progress
        )
        logits[name] = torch.cat(kept.logits)
        reports[name] = report.to_dict() | {"agreement": agreement(logits[name], logits["torch-float"])}
    return {
        "reports": reports,
        "examples": _examples(data.held_out, logits["torch-float"], classes, look.num_examples),
        "data": _describe(data, look.num_samples),
    }


def look_at_task(look: Look) -> dict[str, Any]:
    """A task's own scores, and its answers drawn over images."""
    task, data = load_task(look.run).eval(), look.data
    reports = measure(
        task,
        _predictors(task, look),
        data.held_out,
        look.preprocessing,
        batch_size=look.batch_size,
        progress=look.progress,
    )
    parts = {"train": data.train, "val": data.val} | ({} if data.test is None else {"test": data.test})
    about: dict[str, Any] = {"source": data.source, "fingerprint": data.fingerprint, "classes": list(data.classes)}
    about |= {"counts": None, "totals": {name: len(part) for name, part in parts.items()}}
    about |= {"skipped": list(data.skipped), "samples": []}
    return {"reports": reports, "examples": _drawn(task, look), "data": about}


def _drawn(task: Task, look: Look) -> list[dict[str, Any]]:
    """Some of the held-out images with answers, and with the truth where the task can draw it."""
    chosen = look.data.held_out.sample(look.num_examples, 0)
    examples = []
    for index, name in enumerate(chosen.names):
        image, target = chosen[index]
        name = name if task.input_shape is None else f"made picture {index + 1}"  # it did not see this one
        drawn = task.draw(image, task.answer_sample(image, target, look.preprocessing))
        if drawn is None:
            continue
        examples.append({"name": name, "jpeg_base64": picture(drawn, DRAWN_SIDE)})
        if (truth := task.truth(target)) is not None and (shown := task.draw(image, truth)) is not None:
            examples[-1]["truth_base64"] = picture(shown, DRAWN_SIDE)
    return examples


def agreement(logits: Tensor, reference: Tensor) -> float:
    """Share of rows (b, n) in which both have their largest value at the same place."""
    return float((logits.argmax(1) == reference.argmax(1)).double().mean())


class _Kept:
    """A predictor that remembers what it answered, on the CPU."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.logits: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        answer = self.answers(images)
        self.logits.append(answer.detach().float().cpu())
        return answer


def _predictors(task: nn.Module, look: Look) -> dict[str, Answers]:
    """The PyTorch model first, since the others are compared with it."""
    run = look.run

    def eager(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return task(images)

    predictors: dict[str, Answers] = {"torch-float": eager}
    for name, (runtime, file) in exported_files(run).items():
        try:
            import_runtime(runtime)
        except BenchError:  # an optional extra; on this machine the file cannot be evaluated
            continue
        predictors[name] = predictor(open_session(file, runtime, look.threads))
    return predictors


def exported_files(run: Run) -> dict[str, tuple[str, Path]]:
    """Name in ``reports`` -> (runtime, file), for every file of the run that a runtime of the bench takes."""
    files = {f"onnx-{variant}": ("onnxruntime", run.onnx(variant)) for variant in onnx_variants(run)}
    others = {runtime: kind for runtime in MEASURED if (kind := RUNTIMES[runtime].format) not in (None, "onnx")}
    files |= {f"{runtime}-float": (runtime, run.exported(kind)) for runtime, kind in others.items()}
    return {name: (runtime, file) for name, (runtime, file) in files.items() if file.exists()}


def _examples(images: ImageSet, logits: Tensor, classes: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """The most confident wrong answers, then right ones spread over confidence, so that doubtful ones are seen too."""
    confidence, predicted = logits.softmax(1).max(1)
    order = confidence.argsort(descending=True, stable=True).tolist()
    wrong = [i for i in order if predicted[i] != images.labels[i]]
    right = [i for i in order if predicted[i] == images.labels[i]]
    if len(right) > count:
        right = [right[round(k * (len(right) - 1) / max(count - 1, 1))] for k in range(count)]
    return [
        {
            "name": images.names[i],
            "label": classes[int(images.labels[i])],
            "predicted": classes[int(predicted[i])],
            "probability": round(float(confidence[i]), 4),
            "jpeg_base64": picture(images[i][0]),
        }
        for i in wrong[:count] + right
    ]


def _describe(data: DataSplits[ImageSet], num_samples: int) -> dict[str, Any]:
    parts = {"train": data.train, "val": data.val} | ({} if data.test is None else {"test": data.test})
    shown = data.train if len(data.train) else data.held_out
    return {
        "source": data.source,
        "fingerprint": data.fingerprint,
        "classes": list(data.classes),
        "counts": {
            name: torch.bincount(part.labels, minlength=len(data.classes)).tolist() for name, part in parts.items()
        },
        "skipped": list(data.skipped),
        "samples": [
            {
                "name": shown.names[i],
                "label": data.classes[int(shown.labels[i])],
                "jpeg_base64": picture(shown[i][0]),
            }
            for i in in_turn(shown.labels, num_samples)
        ],
    }


def in_turn(labels: Tensor, count: int) -> list[int]:
    """Indices of ``count`` images: the first of every class, then the second of every class, and so on."""
    seen: dict[int, int] = {}
    ranks = []
    for index, label in enumerate(labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        ranks.append((seen[label], label, index))
    return [index for _, _, index in sorted(ranks)[:count]]


def picture(image: Tensor, side: int = PICTURE_SIDE) -> str:
    """A uint8 RGB image (3, h, w) as base64 of a small JPEG, at most ``side`` pixels a side."""
    pixels = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    pixels.thumbnail((side, side))
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


DETAILED: dict[str, Callable[[Look], dict[str, Any]]] = {"classification": look_at_classes}
"""Tasks of which more is known than their scores."""
