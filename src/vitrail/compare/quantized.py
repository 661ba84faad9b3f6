"""Quantised runs of a comparison: run folders inside the trained one, with the same weights.

Every verb accepts such a folder, and several quantisations of one run stay separate.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict

import torch

from vitrail.compare.outcome import Answers, has_outcome, write_outcome
from vitrail.compare.plan_file import NamedQuantization
from vitrail.core.config import differing_fields
from vitrail.core.errors import RunError
from vitrail.core.files import atomic_path, file_hash, read_json, write_json
from vitrail.quantization import quantize
from vitrail.runs.export import export_run
from vitrail.runs.folder import clear
from vitrail.runs.load import load_task
from vitrail.runs.quantize import load_plan, quantize_run
from vitrail.runs.run import Run
from vitrail.runtimes import open_session, predictor

SIMULATED = "simulated"
"""Label of a model that PyTorch computed with the values of the codes, because no runtime executes the codes."""

EXECUTED = "onnxruntime"
"""Runtime in which quantised files are tested."""


def quantized_run(run: Run, quantization: NamedQuantization) -> Run:
    """The quantised run inside a trained run."""
    return Run(run.folder / "quantized" / quantization.folder)


def quantize_trained(run: Run, quantization: NamedQuantization, *, threads: int = 1, progress: bool = False) -> bool:
    """Quantise a trained run, export it if a runtime executes it, and test it on the held-out images.

    The exported file is tested in ONNX Runtime; codes that no runtime executes are simulated in PyTorch.

    Args:
        run: trained run.
        quantization: configuration of the quantisation.
        threads: number of threads of ONNX Runtime.
        progress: show bars.

    Returns:
        True if the run was tested now.

    Raises:
        RunError: it was quantised with other settings.
        VitrailError: quantisation or export failed.
    """
    own = quantized_run(run, quantization)
    with own.writing():
        _adopt(run, own, quantization)
        if has_outcome(own):
            return False
        if not own.quantization.exists():
            quantize_run(own, quantization, progress=progress)
        if executed_in(own) == SIMULATED:
            answers = _simulation(own)
        else:
            if not own.onnx("int8").exists():
                export_run(own, variants=("int8",))
            answers = predictor(open_session(own.onnx("int8"), EXECUTED, threads))
        write_outcome(own, answers)
        return True


def executed_in(run: Run) -> str:
    """The backend of a quantised run's outcome: :data:`EXECUTED` or :data:`SIMULATED`."""
    return SIMULATED if load_plan(run).simulated else EXECUTED


def _adopt(trained: Run, own: Run, quantization: NamedQuantization) -> None:
    """Make the folder of the quantised run with the present weights; results of older weights are deleted."""
    settings = asdict(quantization) | {"quantization": quantization.quantization.to_dict()}  # field names of 0.1.0
    if own.description.exists():
        differences = differing_fields(own.read().quantized, settings)
        if differences:
            raise RunError(
                f"run {own.folder} was quantised with other settings: {'; '.join(differences)}; "
                f"delete it, or choose another name"
            )
        if own.weights.exists() and file_hash(own.weights) == file_hash(trained.weights):
            return
        clear(own)
    write_json(own.description, read_json(trained.description) | {"quantized": settings})
    if trained.images.exists():
        shutil.copyfile(trained.images, own.images)
    with atomic_path(own.weights) as temporary:
        shutil.copyfile(trained.weights, temporary)


def _simulation(run: Run) -> Answers:
    task = load_task(run)
    return quantize(task, torch.zeros(1, *run.read().image_shape), plan=load_plan(run))
