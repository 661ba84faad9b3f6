"""A run is a folder that describes itself; the verbs of the command line chain on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.core.errors import RunError
from vitrail.core.files import read_json, write_json

SUFFIXES = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "torch-export": ".pt2",
    "aoti": ".aoti.pt2",
    "executorch": ".pte",
    "litert": ".tflite",
    "coreml": ".mlpackage",
}
"""Format of an exported file -> how its name ends."""


@dataclass(frozen=True)
class Run:
    """Names every artefact of a run folder, and reads and writes ``run.json``.

    ``run.json`` holds ``model`` (name and create_model arguments), ``task``, ``classes`` and what else the task needs,
    ``preprocessing``, ``data`` (path and fingerprint), ``training`` (its configuration), ``seed``, ``versions``,
    ``command`` and ``status`` ("training" until the last epoch is done, then "trained").
    """

    folder: Path

    @property
    def description(self) -> Path:
        return self.folder / "run.json"

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def metrics(self) -> Path:
        """One row an epoch: epoch, learning_rate, train_loss, val_loss, then the task's scores (val_top1, ...)."""
        return self.folder / "metrics.csv"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def predictions(self) -> Path:
        """What the weights say of every held-out image: arrays ``logits``, ``labels`` and ``names``."""
        return self.folder / "predictions.npz"

    @property
    def scores(self) -> Path:
        """The task's figures of merit on the held-out images, where no image is right or wrong."""
        return self.folder / "scores.json"

    @property
    def robustness(self) -> Path:
        """Accuracy and consistency under shifts, rotations, corruptions, ..."""
        return self.folder / "robustness.json"

    @property
    def quantization(self) -> Path:
        return self.folder / "quantization.json"

    @property
    def bench(self) -> Path:
        return self.folder / "bench.jsonl"

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    @property
    def explanation(self) -> Path:
        """Pictures and arrays of what the model looks at."""
        return self.folder / "explanation"

    @property
    def checkpoints(self) -> Path:
        """Training state for ``--resume``; everything else outlives its deletion."""
        return self.folder / "checkpoints"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def onnx(self, variant: str) -> Path:
        """``model.onnx`` for "float", ``model.int8.onnx`` for "int8", ..."""
        return self.exported("onnx", variant)

    def exported(self, format: str, variant: str = "float") -> Path:
        """The file of a format in :data:`SUFFIXES`, e.g. ``model.xml``, ``model.int8.xml``, ``model.pte``."""
        stem = "model" if variant == "float" else f"model.{variant}"
        return self.folder / f"{stem}{SUFFIXES[format]}"

    @classmethod
    def open(cls, folder: str | Path, *, needs: tuple[str, ...] = ("description", "weights")) -> Run:
        """An existing run that has what the caller ``needs`` (names of the properties above).

        Raises:
            RunError: the folder does not exist or lacks one of them.
        """
        run = cls(Path(folder))
        if run.folder.exists() and not run.folder.is_dir():
            raise RunError(f"run folder {run.folder} is a file; give the folder that it lies in")
        if not run.folder.is_dir():
            raise RunError(f"run folder {run.folder} does not exist; make one with: vitrail train --run {run.folder}")
        makers = {"evaluation": "evaluate", "quantization": "quantize", "bench": "bench"}
        for need in needs:
            path: Path = getattr(run, need)
            if not path.exists():
                if need == "weights" and run.description.exists():
                    remedy = f"finish it with: vitrail train --run {run.folder} --resume (and the same options)"
                elif need in makers:
                    remedy = f"make it with: vitrail {makers[need]} {run.folder}"
                else:
                    remedy = f"make it with: vitrail train --run {run.folder}"
                raise RunError(f"run {run.folder} is incomplete: {path.name} is missing; {remedy}")
        return run

    def read(self) -> dict[str, Any]:
        """The contents of ``run.json``."""
        values = read_json(self.description)
        if not isinstance(values, dict) or "model" not in values:
            raise RunError(f"{self.description} does not describe a run (no 'model' in it)")
        return values

    def update(self, **values: Any) -> None:
        """Merge ``values`` into ``run.json``, atomically."""
        known = read_json(self.description) if self.description.exists() else {}
        write_json(self.description, known | values)
