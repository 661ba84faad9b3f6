"""The run folder, with the names of all its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vitrail.core.errors import RunError
from vitrail.core.files import file_hash, read_json, write_json
from vitrail.core.paths import NOT_UTF8, typed_path, user_path
from vitrail.runs.description import VERSION, Description
from vitrail.runtimes import FORMATS

TRAINING = (
    "run.json",
    "model.safetensors",
    "metrics.csv",
    "checkpoints/last.ckpt",
    "checkpoints/best.ckpt",
    "tensorboard/events.out.tfevents.*",
    "tensorboard/hparams.yaml",
)
"""Files that training writes."""

DERIVED = (
    "evaluation.json",
    "predictions.npz",
    "scores.json",
    "robustness.json",
    "quantization.json",
    "quantization.partial.json",
    "bench.jsonl",
    "report.html",
    "figures/*.png",
    "explanation/arrays.npz",
    "explanation/*.png",
    "explanation/*.svg",
)
"""Files that other verbs make from the weights, without the exported files."""

BESIDE = (".json", ".data")
"""Endings of files that belong to an exported file beside them: its record, and external weights of ONNX."""

MAKERS = {"evaluation": "evaluate", "quantization": "quantize", "bench_rows": "bench"}
"""Artefact -> verb that makes it."""


@dataclass(frozen=True)
class Run:
    """A run folder: paths of its files, and its description.

    Attributes:
        folder: path of the folder, which need not exist yet; ``~`` stands for the home folder.

    Raises:
        RunError: the path is no UTF-8 text, which files of the run have to hold.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", user_path(self.folder))
        if NOT_UTF8.search(str(self.folder)) or "\0" in str(self.folder):
            raise RunError(f"run folder {str(self.folder)!r} has a name that is no UTF-8 text; choose another name")

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def description(self) -> Path:
        """``run.json``, see :class:`~vitrail.runs.description.Description`."""
        return self.folder / "run.json"

    @property
    def weights(self) -> Path:
        """The state dict of the task."""
        return self.folder / "model.safetensors"

    @property
    def metrics(self) -> Path:
        """One row per epoch: epoch, learning_rate, train_loss, val_loss, then the task's scores (val_top1, ...)."""
        return self.folder / "metrics.csv"

    @property
    def evaluation(self) -> Path:
        """Accuracy of the weights and of every exported file on the held-out images."""
        return self.folder / "evaluation.json"

    @property
    def predictions(self) -> Path:
        """Answers to every held-out image: arrays ``logits``, ``labels`` and ``names``."""
        return self.folder / "predictions.npz"

    @property
    def scores(self) -> Path:
        """Scores on the held-out images, for tasks with scores of all images together."""
        return self.folder / "scores.json"

    @property
    def robustness(self) -> Path:
        """Accuracy and consistency under shifts, rotations, corruptions and other changes."""
        return self.folder / "robustness.json"

    @property
    def quantization(self) -> Path:
        """The plan of the quantised model."""
        return self.folder / "quantization.json"

    @property
    def partial_quantization(self) -> Path:
        """State of an interrupted quantisation."""
        return self.folder / "quantization.partial.json"

    @property
    def bench_rows(self) -> Path:
        """Measurements of latency, memory and energy, one per line."""
        return self.folder / "bench.jsonl"

    @property
    def figures(self) -> Path:
        """Folder of pictures."""
        return self.folder / "figures"

    @property
    def explanation(self) -> Path:
        """Folder of pictures and arrays that ``vitrail explain`` made."""
        return self.folder / "explanation"

    @property
    def checkpoints(self) -> Path:
        """Folder of training state for ``--resume``; no other verb needs it."""
        return self.folder / "checkpoints"

    @property
    def logs(self) -> Path:
        """Folder of TensorBoard's files."""
        return self.folder / "tensorboard"

    @property
    def quantized(self) -> Path:
        """Folder of the runs that a comparison quantised from this one."""
        return self.folder / "quantized"

    @property
    def report_page(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    def onnx(self, variant: str) -> Path:
        """``model.onnx`` for "float", ``model.int8.onnx`` for "int8", ..."""
        return self.exported("onnx", variant)

    def exported(self, format: str, variant: str = "float") -> Path:
        """The file of a format, e.g. ``model.xml``, ``model.int8.xml``, ``model.pte``."""
        stem = "model" if variant == "float" else f"model.{variant}"
        return self.folder / f"{stem}{FORMATS[format].suffix}"

    def variants(self, format: str = "onnx") -> list[str]:
        """Variants with a file of the format; "float" and "int8" are always the first two."""
        suffix = FORMATS[format].suffix
        names = (path.name for path in self.folder.glob(f"model.*{suffix}"))
        others = sorted(name.removeprefix("model.").removesuffix(suffix) for name in names)
        return ["float", "int8", *(name for name in others if name != "int8" and "." not in name)]

    def artefacts(self) -> list[Path]:
        """Every file of the run that exists, the description last.

        Files that Vitrail does not write are left out. A ``.mlpackage`` is a folder and counts as one file.
        """
        patterns = [*TRAINING[1:], *DERIVED]
        for format in FORMATS.values():
            names = (f"model{format.suffix}", f"model.*{format.suffix}")
            patterns += [name + ending for name in names for ending in ("", *BESIDE)]
        patterns += ["model.bin", "model.*.bin"]  # the weights of OpenVINO's files
        found = dict.fromkeys(path for pattern in patterns for path in sorted(self.folder.glob(pattern)))
        inner = [path for run in self._quantized_runs() for path in run.artefacts()]
        return [*found, *inner, *([self.description] if self.description.exists() else [])]

    def _quantized_runs(self) -> Iterator[Run]:
        for path in sorted(self.quantized.glob("*/run.json")):
            yield Run(path.parent)

    def leftovers(self) -> list[Path]:
        """Hidden temporary files of a killed process."""
        targets = [path for pattern in TRAINING if "*" not in pattern for path in [self.folder / pattern]]
        return [found for path in targets for found in path.parent.glob(f".{path.stem}-*{path.suffix}")]

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, needs: tuple[str, ...] = ("description", "weights")) -> Self:
        """An existing run with the files in ``needs`` (names of the properties above).

        Raises:
            RunError: the folder does not exist or lacks one of them.
        """
        run = cls(user_path(folder))
        typed = typed_path(run.folder)
        if run.folder.exists() and not run.folder.is_dir():
            raise RunError(f"run folder {run.folder} is a file; give the folder that it lies in")
        if not run.folder.is_dir():
            raise RunError(f"run folder {run.folder} does not exist; make one with: vitrail train --run {typed}")
        for need in needs:
            path: Path = getattr(run, need)
            if not path.exists():
                if need == "weights" and run.description.exists():
                    remedy = f"finish it with: vitrail train --run {typed} --resume (and the same options)"
                elif need in MAKERS:
                    remedy = f"make it with: vitrail {MAKERS[need]} {typed}"
                else:
                    remedy = f"make it with: vitrail train --run {typed}"
                raise RunError(f"run {run.folder} is incomplete: {path.name} is missing; {remedy}")
        return run

    def read(self) -> Description:
        """The contents of ``run.json``.

        Raises:
            RunError: the file does not describe a run.
            VitrailError: the file is missing or is not JSON.
        """
        return Description.read(read_json(self.description), str(self.description))

    def update(self, **values: Any) -> None:
        """Merge ``values`` into ``run.json``, atomically; entries of later versions stay."""
        known = read_json(self.description) if self.description.exists() else {"version": VERSION}
        write_json(self.description, known | values)

    @property
    def weights_hash(self) -> str:
        """Hash of the weights, which derived files record; "" without weights."""
        return file_hash(self.weights) if self.weights.exists() else ""
