"""The Python interface: the verbs of the command line as functions, and a run folder with the verbs as methods.

Functions and methods take the options of the command line under the same names, with underscores.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

from vitrail.bench import BenchConfig, BenchResult
from vitrail.core.config import convert
from vitrail.core.errors import ConfigError
from vitrail.core.paths import user_path
from vitrail.core.progress import is_watched
from vitrail.data import DataConfig
from vitrail.evaluation import Prediction, RobustnessConfig
from vitrail.export import ExportRecord
from vitrail.quantization import QuantizationPlan
from vitrail.report import write_report
from vitrail.report.probe_page import write_probe_page
from vitrail.report.rows import (
    PredictionRows,
    Rows,
    bench_rows,
    evaluation_rows,
    export_rows,
    probe_rows,
    run_html,
    score_text,
)
from vitrail.report.soundness_page import write_soundness
from vitrail.runs.bench import bench_run
from vitrail.runs.evaluate import evaluate_run
from vitrail.runs.explain import explain_run
from vitrail.runs.export import VERIFICATION_IMAGES, export_run
from vitrail.runs.load import load_task
from vitrail.runs.predict import ImageSource, predict_run
from vitrail.runs.probe import ProbeConfig, probe as probe_run
from vitrail.runs.probe_results import ProbeRow
from vitrail.runs.quantize import CalibrationConfig, quantize_run
from vitrail.runs.robustness import measure_run_robustness
from vitrail.runs.run import Run
from vitrail.runs.schema import read_evaluation
from vitrail.runs.settings import configured
from vitrail.runs.train import train as train_run
from vitrail.soundness import CheckConfig, Soundness, check_data as look_through
from vitrail.tasks import Task
from vitrail.training import TrainConfig

P = ParamSpec("P")
R = TypeVar("R")

PLAIN = (int, int | None, bool, bool | None)
"""Types of arguments that are converted."""


def _converted(function: Callable[P, R]) -> Callable[P, R]:
    """Numbers and switches are taken as text too; what is none is told by the argument's name."""
    signature, kinds = inspect.signature(function), get_type_hints(function)

    @functools.wraps(function)
    def converting(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if kinds.get(name) in PLAIN:
                bound.arguments[name] = convert(kinds[name], value, name)
        return function(*bound.args, **bound.kwargs)

    return converting


class TrainedRun(Run):
    """A run folder with a trained model, from :func:`train` or :func:`open_run`.

    Example::

        import vitrail

        run = vitrail.open_run("runs/photos")
        run.evaluate()
        run.quantize(bits=8)
        run.export("onnx", "openvino")
        run.bench()
        run.predict("cat.jpg")
        run.report()
    """

    @property
    def task(self) -> Task:
        """The trained model as a PyTorch module in evaluation mode, loaded anew at each call."""
        return load_task(self)

    @_converted
    def evaluate(self, *, batch_size: int = 64, progress: bool | None = None) -> Rows[dict[str, Any]]:
        """Accuracy of the weights and of every exported file on the held-out images.

        Args:
            batch_size: number of images at once; it changes speed, never the result.
            progress: show bars. Default: in terminals and notebooks.

        Returns:
            a report for each file, the weights first; ``run.evaluation`` holds them too.

        Raises:
            VitrailError: the images are missing, or a file cannot be run.
        """
        return evaluation_rows(self, evaluate_run(self, batch_size=batch_size, progress=_wanted(progress)))

    @_converted
    def measure_robustness(self, *, progress: bool | None = None, **settings: Any) -> dict[str, Any]:
        """Accuracy and consistency under shifts, rotations, corruptions and other changes.

        Args:
            progress: show a bar. Default: in terminals and notebooks.
            **settings: fields of :class:`vitrail.RobustnessConfig`.

        Raises:
            VitrailError: the task is not classification, or the images are missing.
        """
        return measure_run_robustness(self, configured(RobustnessConfig, settings), progress=_wanted(progress))

    @_converted
    def quantize(self, *, progress: bool | None = None, **settings: Any) -> QuantizationPlan:
        """Quantise weights and activations, calibrated on a few dozen training images.

        Args:
            progress: show bars. Default: in terminals and notebooks.
            **settings: options of ``vitrail quantize``, such as ``bits=8``, ``calibration=64`` or
                ``max_size_mb=3``; fields of :class:`vitrail.CalibrationConfig` and
                :class:`vitrail.QuantizationConfig`.

        Returns:
            the plan, from which :meth:`export` makes the 8-bit file.

        Raises:
            VitrailError: the model cannot be quantised like this.
        """
        return quantize_run(self, configured(CalibrationConfig, settings), progress=_wanted(progress)).plan

    @_converted
    def export(
        self,
        *formats: str,
        num_images: int = VERIFICATION_IMAGES,
        dynamic_size: bool = False,
        outlier_score: bool = False,
    ) -> Rows[ExportRecord]:
        """Write verified files: the float model, and the quantised one if there is a plan.

        Args:
            *formats: names of formats: onnx (the default), openvino, torch-export, aoti, executorch, litert, coreml.
            num_images: number of held-out images that every file is verified on.
            dynamic_size: leave height and width of the float ONNX file free, within the limits of the architecture.
            outlier_score: give float ONNX, OpenVINO and torch.export files the outlier score as a second output.

        Raises:
            VitrailError: a file cannot be written, or disagrees with the model.
        """
        records = export_run(
            self, num_images, formats=formats or ("onnx",), dynamic_size=dynamic_size, outlier_score=outlier_score
        )
        return export_rows(records)

    @_converted
    def bench(self, *, progress: bool | None = None, **settings: Any) -> Rows[BenchResult]:
        """Latency, memory and energy of every file in every runtime, measured side by side.

        Args:
            progress: show a bar. Default: in terminals and notebooks.
            **settings: fields of :class:`vitrail.BenchConfig`, such as ``runtimes=("onnxruntime",)``.

        Raises:
            VitrailError: a runtime is unknown, or this machine does not support the measurement.
        """
        return bench_rows(bench_run(self, configured(BenchConfig, settings), progress=_wanted(progress)))

    @_converted
    def predict(
        self,
        images: ImageSource | list[ImageSource] | tuple[ImageSource, ...],
        *,
        top_k: int | None = None,
        min_confidence: float | None = None,
        coverage: float | None = None,
        outlier_score: bool = False,
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> Rows[Prediction]:
        """Answers to images.

        Args:
            images: a file, a folder, a PIL image, a uint8 array (h, w, 3) or (h, w), a uint8 tensor (3, h, w), or a
                list of these.
            top_k: number of entries in an answer. Default: the task's own number.
            min_confidence: least probability of an object or a class in an answer. Default: the best one on the
                validation images, which :meth:`evaluate` finds; one half before.
            coverage: share of images whose set of classes (``trust.classes`` of an answer) shall hold the right one;
                it takes :func:`vitrail.fit_trust`.
            outlier_score: whether answers have ``trust.outlier_score`` and ``trust.unusual``; it takes the same.
            batch_size: number of images at once; it changes speed, never the result.
            progress: show a bar. Default: in terminals and notebooks.

        Returns:
            an answer for each image; images that cannot be decoded are left out, and listed in ``notes``.

        Raises:
            VitrailError: no image can be decoded, or the task takes no images.
        """
        found = predict_run(
            self,
            images if isinstance(images, list | tuple) else [images],
            top_k=top_k,
            min_confidence=min_confidence,
            coverage=coverage,
            outlier_score=outlier_score,
            batch_size=batch_size,
            progress=_wanted(progress),
        )
        return PredictionRows(found)

    def explain(self, *images: str | Path, out: str | Path | None = None) -> list[Path]:
        """Draw pictures that explain the model's answers.

        Args:
            *images: image files or folders.
            out: folder for pictures and arrays. Default: ``explanation/`` in the run.

        Returns:
            the files that were written.

        Raises:
            VitrailError: there are no images, or the task takes none.
        """
        folder = None if out is None else user_path(out)
        return explain_run(self, [user_path(image) for image in images], folder=folder)[1]

    def report(self) -> Path:
        """Write the HTML report of the run, and return its path."""
        return write_report(self)

    def __repr__(self) -> str:
        if not self.description.exists():
            return f"TrainedRun({str(self.folder)!r}: empty)"
        description = self.read()
        facts = [description.model.name, description.task, description.status]
        if (evaluation := read_evaluation(self)) is not None and evaluation["reports"]:
            row = evaluation_rows(self, evaluation)[0]
            score = description.kind.scores[0]
            facts.append(f"{score.title} {score_text(score, row[score.name])}")
        return f"TrainedRun({str(self.folder)!r}: {', '.join(facts)})"

    def _repr_html_(self) -> str:
        return run_html(self) if self.description.exists() else repr(self)


@_converted
def train(
    data: str | Path | DataConfig | TrainConfig,
    *,
    run: str | Path = "runs/train",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> TrainedRun:
    """Train a model on a folder of images, and write it to a run folder.

    Example::

        import vitrail

        run = vitrail.train("photos/", model="edgevit_xxs", epochs=50, run="runs/photos")

    Args:
        data: folder of images, or a whole configuration.
        run: folder that the run is written to.
        resume: continue an interrupted training where it stopped.
        overwrite: delete the run in the folder.
        progress: show a bar. Default: in terminals and notebooks.
        **settings: options of ``vitrail train``, such as ``model``, ``task``, ``epochs`` or ``mixup_alpha``; fields of
            :class:`vitrail.TrainConfig`, :class:`vitrail.DataConfig` and :class:`vitrail.AugmentConfig`.

    Returns:
        the run, with the verbs as methods.

    Raises:
        VitrailError: a setting is not allowed, the images are unusable, or the folder holds other files.
    """
    if isinstance(data, TrainConfig):
        if settings:
            raise ConfigError(f"{', '.join(settings)} and a whole TrainConfig: put them into the configuration")
        config = data
    else:
        source = asdict(data) if isinstance(data, DataConfig) else {"path": os.fspath(data)}
        config = configured(TrainConfig, settings, {"data": source})
    train_run(config, run=run, resume=resume, overwrite=overwrite, progress=_wanted(progress))
    return open_run(run)


@_converted
def probe(
    data: str | Path | DataConfig,
    *models: str | Path,
    run: str | Path = "runs/probe",
    overwrite: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> Rows[ProbeRow]:
    """Compare frozen backbones on a folder of images without training, and write the best probe as a run.

    Example::

        import vitrail

        found = vitrail.probe("photos/", "vit_tiny_patch16", "mobilevit_s", run="runs/probe")
        print(found)  # a table, and which one to fine-tune
        vitrail.open_run("runs/probe").evaluate()

    Args:
        data: folder of images, or a whole configuration of the data.
        *models: names of models, ``NAME=FILE`` for weights files, run folders. Default: the models in the hub's cache,
            and a few small ones.
        run: folder that the run of the best probe is written to; ``probe.html`` in it has a map of the images.
        overwrite: delete the run in the folder.
        progress: show bars. Default: in terminals and notebooks.
        **settings: options of ``vitrail probe``, such as ``num_images`` or ``class_weights``; fields of
            :class:`vitrail.ProbeConfig` and :class:`vitrail.DataConfig`.

    Returns:
        a row for each backbone, the best first; ``notes`` say which one to fine-tune and why.

    Raises:
        VitrailError: the images are unusable, no backbone with weights can be had, or the folder holds other files.
    """
    source = asdict(data) if isinstance(data, DataConfig) else {"path": os.fspath(data)}
    plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in settings.items()}
    named = plain.get("model", ())
    plain["model"] = (*(os.fspath(model) for model in models), *([named] if isinstance(named, str) else named))
    config = configured(ProbeConfig, plain, {"data": source})
    report = probe_run(config, run=run, overwrite=overwrite, progress=_wanted(progress))
    write_probe_page(report, Run(user_path(run)))
    return probe_rows(report)


def open_run(folder: str | Path | Run) -> TrainedRun:
    """A run folder that exists, with the verbs as methods.

    Raises:
        RunError: the folder is not a run, or its training is not finished.
    """
    return TrainedRun.open(folder)


@_converted
def check_data(
    data: str | Path, *, out: str | Path | None = None, progress: bool | None = None, **settings: Any
) -> Soundness:
    """Look through a folder of images before anything is trained on it.

    Example::

        import vitrail

        found = vitrail.check_data("photos/", weights="pretrained", out="checked")
        for finding in found.serious:
            print(finding.title)

    Args:
        data: folder of the data, or "sample".
        out: folder for the page and the tables. Default: nothing is written.
        progress: show bars. Default: in terminals and notebooks.
        **settings: options of ``vitrail check``, such as ``task``, ``model`` or ``weights``; fields of
            :class:`vitrail.CheckConfig`.

    Returns:
        what was understood of the data, and what was found in it.

    Raises:
        VitrailError: nothing of the folder can be used, the weights do not fit, or ``strict`` is set and something
            serious was found.
    """
    config = configured(CheckConfig, settings)
    found = look_through(user_path(data), config, progress=_wanted(progress))
    if out is not None:
        write_soundness(found, user_path(out))
    if config.strict:
        found.require_sound()
    return found


def _wanted(progress: bool | None) -> bool:
    """Whether bars are shown. Default: in terminals and notebooks."""
    return is_watched() if progress is None else progress
