"""The run folder, with the names of all its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from vitrail.core.errors import RunError, VitrailError
from vitrail.core.files import file_hash, make_folder, read_json, remove, temporary_paths, write_json
from vitrail.core.lock import locked
from vitrail.core.paths import NOT_UTF8, typed_path, user_path
from vitrail.runs.description import VERSION, Description
from vitrail.runtimes import FORMATS

TRAINING = (
    "run.json",
    "images.csv",
    "model.safetensors",
    "metrics.csv",
    "checkpoints/last.ckpt",
    "checkpoints/best.ckpt",
    "checkpoints/probe.safetensors",
    "checkpoints/teacher-*.f16",
    "tensorboard/events.out.tfevents.*",
    "tensorboard/hparams.yaml",
    "csv/version_*/metrics.csv",
    "csv/version_*/hparams.yaml",
    "wandb/*",
    "mlruns/*",
)
"""Files that training writes."""

DERIVED = (
    "evaluation.json",
    "predictions.npz",
    "scores.json",
    "robustness.json",
    "trust.json",
    "trust.safetensors",
    "quantization.json",
    "quantization.partial.json",
    "bench.jsonl",
    "report.html",
    "probe.json",
    "probe.html",
    *(f"figures/{name}.png" for name in ("confusion", "reliability", "trust")),
    *(f"figures/{name}.png" for name in ("quantization_noise", "quantization_budget", "bit_widths")),
    *(f"figures/robustness-{group}.png" for group in ("translation", "rotation", "scale", "corruption", "resolution")),
    "explanation/arrays.npz",
    *(
        f"explanation/{name}.{suffix}"
        for name in ("attention", "collapse", "distances", "filters", "positions", "receptive_fields")
        for suffix in ("png", "svg")
    ),
)
"""Files that other verbs make from the weights, without the exported files."""

WRITTEN_VARIANTS = ("float", "int8")
"""Variants that ``vitrail export`` writes."""

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables with the number of a process among those that train together."""

MAKERS = {"evaluation": "evaluate", "trust": "trust", "quantization": "quantize", "bench_rows": "bench"}
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
    def lock(self) -> Path:
        """Present while a verb writes to the folder, see :meth:`writing`."""
        return self.folder / ".lock"

    @property
    def images(self) -> Path:
        """The images of the training and their parts, see :mod:`vitrail.runs.parts`; runs of version 0.1.0 lack it."""
        return self.folder / "images.csv"

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
    def trust(self) -> Path:
        """How far the answers can be trusted: temperature, sets of classes, outlier score."""
        return self.folder / "trust.json"

    @property
    def trust_arrays(self) -> Path:
        """The statistics behind :attr:`trust`."""
        return self.folder / "trust.safetensors"

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
    def code(self) -> Path:
        """Folder of copies of the user's own code, for people to read; nothing imports them."""
        return self.folder / "code"

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

    @property
    def probe(self) -> Path:
        """What ``vitrail probe`` measured of every backbone."""
        return self.folder / "probe.json"

    @property
    def probe_page(self) -> Path:
        """The HTML page of ``vitrail probe``."""
        return self.folder / "probe.html"

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
        found = [path for pattern in [*TRAINING[1:], *DERIVED] for path in sorted(self.folder.glob(pattern))]
        exported = [path for format in FORMATS for path in self._exported_files(format)]
        inner = [path for run in self.quantized_runs() for path in run.artefacts()]
        every = dict.fromkeys([*found, *self._code_copies(), *exported, *inner, self.description])
        return [path for path in every if path.exists() and not path.parent.is_symlink()]

    def _code_copies(self) -> list[Path]:
        """Paths of the copies of own code that ``run.json`` names."""
        try:
            entries = self.read().own_code
        except VitrailError:
            return []
        return [self.code / name for name in dict.fromkeys(entry.copy_name for entry in entries) if name]

    def _exported_files(self, format: str) -> Iterator[Path]:
        """Paths of a format's files and of what lies beside them; a file of another variant has its record there."""
        suffix = FORMATS[format].suffix
        recorded = [self.folder / path.name.removesuffix(".json") for path in self.folder.glob(f"model.*{suffix}.json")]
        for path in (*(self.exported(format, variant) for variant in WRITTEN_VARIANTS), *sorted(recorded)):
            yield from (path, path.with_name(path.name + ".json"))
            if format == "onnx":
                yield path.with_name(path.name + ".data")  # large weights
            if format == "openvino":
                yield path.with_suffix(".bin")  # all weights

    def quantized_runs(self) -> Iterator[Run]:
        """The runs that a comparison quantised from this one."""
        for path in sorted(self.quantized.glob("*/run.json")):
            if (run := Run(path.parent)).is_ours:
                yield run

    def leftovers(self) -> list[Path]:
        """Temporary files and folders of processes that were killed, or that write at this moment."""
        names = [self.folder / name for name in (*TRAINING, *DERIVED)]
        names += [*self._code_copies(), *(path for format in FORMATS for path in self._exported_files(format))]
        return list(dict.fromkeys(path for name in names for path in temporary_paths(name)))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes from writing to the folder while the block runs, and delete what dead ones left there.

        A folder that does not exist is made, and is deleted again if nothing was written to it. Verbs may call each
        other inside. Processes that train together count as one.

        Raises:
            RunError: another process writes to the folder, or the folder holds other files and no run.
            VitrailError: the folder is not writable.
        """
        if any(os.environ.get(name, "0") != "0" for name in RANKS):
            yield  # the first of them has the lock
            return
        self._check_place()
        made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        make_folder(self.folder)
        try:
            with locked(self.lock, f"run {self.folder}"):
                if self.is_ours or not self.description.exists():
                    self._sweep()
                yield
        finally:
            for folder in made:
                with suppress(OSError):  # there is something in it
                    folder.rmdir()

    def _sweep(self) -> None:
        """Delete leftovers; a file that is younger than the lock belongs to a device that reports a measurement."""
        locked_at = self.lock.stat().st_mtime
        for path in self.leftovers():
            if path.lstat().st_mtime < locked_at:
                remove(path)

    def _check_place(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"run folder {self.folder} is a file; choose another folder")
        if self.description.exists() or not self.folder.exists():
            return
        if set(self.folder.iterdir()) - {self.lock, *self.leftovers()}:
            raise RunError(f"folder {self.folder} is not empty and is not a run; choose another folder")

    @property
    def is_ours(self) -> bool:
        """Whether Vitrail wrote ``run.json``, as it says itself."""
        try:
            return "vitrail" in self.read().versions
        except VitrailError:
            return False

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


Verb = TypeVar("Verb", bound=Callable[..., Any])


def writes(verb: Verb) -> Verb:
    """A function of a run that is the only one to write to the run's folder; see :meth:`Run.writing`."""

    @wraps(verb)
    def locking(run: Run, *args: Any, **kwargs: Any) -> Any:
        with run.writing():
            return verb(run, *args, **kwargs)

    return cast("Verb", locking)
