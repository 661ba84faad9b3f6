"""A teacher that is an ONNX file, of this toolkit or of any other."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from vitrail.core.errors import ConfigError
from vitrail.core.files import check_regular, file_hash
from vitrail.core.types import ImageSize, Preprocessing
from vitrail.device.answer import read_facts
from vitrail.tasks.teacher import Seen, Teacher
from vitrail.training.distillation.module_teacher import resized

NUM_TRIED = 4
TOLERANCE = 1e-3
LEAST = 1e-7
"""Smallest probability that becomes a logit."""

KINDS: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


class OnnxTeacher(Teacher):
    """An ONNX file in ONNX Runtime; it shows its output alone.

    Args:
        path: the file.
        preprocessing: what it expects, where its metadata does not say it; a size that the file has wins.
        task_name: name of the task of its output, where its metadata does not say it.
        output: name of the output, where there are several.

    Attributes:
        described: whether the metadata says what it expects of an image.
        probabilities: "classes" where each row of the output sums to 1, "labels" where all are shares, else "".

    Raises:
        ConfigError: ONNX Runtime cannot load it, or its inputs or outputs are not those of an image model.
    """

    def __init__(
        self, path: Path, preprocessing: Preprocessing, *, task_name: str, output: str | None = None, threads: int = 1
    ) -> None:
        self.title, self.fingerprint = path.name, file_hash(path)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        try:
            check_regular(path)
            self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ConfigError(f"cannot be loaded as ONNX: {str(error).splitlines()[0][:200]}", teacher=path) from error
        facts = _facts(self.session.get_modelmeta().custom_metadata_map)
        self.task_name = facts.get("task", task_name)
        self.classes = tuple(facts.get("classes", ()))
        self.described = "preprocessing" in facts
        known = Preprocessing.from_dict(facts["preprocessing"]) if self.described else preprocessing
        self.input, self.batch, self.last, size = self._read_input(path)
        self.preprocessing = replace(known, image_size=size or known.image_size)
        self.output = self._choose_output(output, ours="task" in facts)
        tried = self._run(torch.randint(0, 256, (NUM_TRIED, 3, *self.preprocessing.image_size), dtype=torch.uint8))
        self.num_outputs = tried.shape[1] if tried.ndim == 2 else 0
        self.probabilities = _kind_of(tried, self.task_name)

    def _read_input(self, path: Path) -> tuple[Any, int | None, bool, ImageSize | None]:
        """The input, its fixed batch size, whether channels come last, and its fixed image size."""
        inputs = self.session.get_inputs()
        shown = ", ".join(f"{one.name} {one.shape} {one.type}" for one in inputs)
        first = inputs[0]
        last = len(first.shape) == 4 and first.shape[1] != 3 and first.shape[3] == 3
        if len(inputs) != 1 or len(first.shape) != 4 or first.type not in KINDS or (first.shape[1] != 3 and not last):
            raise ConfigError(f"must have one input, images of 3 channels; it has {shown}", teacher=path)
        batch = first.shape[0] if isinstance(first.shape[0], int) and first.shape[0] > 0 else None
        height, width = first.shape[1:3] if last else first.shape[2:4]
        fixed = isinstance(height, int) and isinstance(width, int)
        return first, batch, last, (height, width) if fixed else None

    def _choose_output(self, wanted: str | None, *, ours: bool) -> str:
        outputs = self.session.get_outputs()
        names = [one.name for one in outputs]
        if wanted is not None and wanted not in names:
            raise ConfigError(f"is no output of the teacher; it has {', '.join(names)}", teacher_output=wanted)
        if wanted is None and len(names) > 1 and not ours:
            shown = ", ".join(f"{one.name} {one.shape}" for one in outputs)
            raise ConfigError(f"has several outputs: {shown}; choose one with --teacher-output", teacher=self.title)
        return wanted or names[0]

    def _run(self, images: Tensor) -> Tensor:
        """uint8 images (b, 3, h, w) to the raw output (b, ...), in parts of the size that the file takes."""
        kind = KINDS[self.input.type]
        pixels = images.float() if kind is np.uint8 else self.preprocessing.normalize(images)
        values = pixels.cpu().numpy().round().astype(kind) if kind is np.uint8 else pixels.cpu().numpy().astype(kind)
        values = np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if self.last else values
        size = self.batch or len(values)
        answers = []
        for start in range(0, len(values), size):
            part = values[start : start + size]
            filled = part if len(part) == size else np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])
            answers.append(self.session.run([self.output], {self.input.name: filled})[0][: len(part)])
        return torch.from_numpy(np.concatenate(answers)).float()

    def show(self, images: Tensor, levels: Sequence[int] = (), *, output: bool = True) -> Seen:
        if not output:
            return Seen()
        answer = self._run(resized(images.cpu(), self.preprocessing.image_size))
        if self.probabilities == "classes":
            answer = answer.clamp(min=LEAST).log()
        elif self.probabilities == "labels":
            answer = answer.logit(eps=LEAST)
        return Seen(output=answer.to(images.device))


def _facts(metadata: dict[str, str]) -> dict[str, Any]:
    """What the metadata says, of our files and of ultralytics'."""
    facts: dict[str, Any] = {}
    try:
        if any(name.startswith("vitrail.") for name in metadata):
            facts |= read_facts(metadata)
            facts["task"] = facts["task"]["name"]
        elif "names" in metadata:
            names = ast.literal_eval(metadata["names"])
            facts["classes"] = [str(names[key]) for key in sorted(names)] if isinstance(names, dict) else list(names)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise ConfigError(f"the teacher's metadata is damaged ({error}); export it again") from error
    return facts


def _kind_of(output: Tensor, task_name: str) -> str:
    """Whether an output is already probabilities, and of what."""
    if output.ndim < 2 or output.min() < 0 or output.max() > 1 + TOLERANCE:
        return ""
    if task_name in ("classification", "segmentation") and (output.sum(1) - 1).abs().max() < TOLERANCE:
        return "classes"
    return "labels" if task_name == "multilabel" else ""
