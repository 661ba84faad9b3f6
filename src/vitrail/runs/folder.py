"""The run folder in training: checks, description and final weights."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from vitrail.core.errors import RunError, VitrailError
from vitrail.core.files import atomic_path, remove
from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits
from vitrail.models.checkpoint import read_trained
from vitrail.models.registry import decided_fields
from vitrail.runs.parts import KnownImage, known_images, read_parts, write_parts
from vitrail.runs.remembered_code import keep_copies, require_code, used_code
from vitrail.runs.run import Run
from vitrail.tasks import Score, Task, find_task
from vitrail.training.config import ResolvedConfig, TrainConfig, differing_settings
from vitrail.training.distillation.answer_cache import forget_answers
from vitrail.training.lora import adapter_size, merged
from vitrail.training.module import diverged
from vitrail.training.recorder import TrainingFiles, best_row, read_checkpoint, recorded_rows, stop_told, task_state

FREE_FIELDS = (
    *("num_workers", "loggers", "data.path", "data.max_bad_fraction", "data.strict"),
    *("accelerator", "devices", "num_nodes", "strategy", "distill.teacher", "distill.teacher_device"),
)
"""Fields that a resumed run may change: where the images and the teacher lie, since fingerprints know both, how many
images may be bad, what computes, and who logs."""

PACKAGES = ("vitrail", "torch", "torchvision", "lightning", "numpy")


def is_finished(run: Run) -> bool:
    """Whether the last epoch is done and the weights are written."""
    return run.description.exists() and run.read().status == "trained" and run.weights.exists()


def check_folder(run: Run, config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
    """Refuse to overwrite files by accident and to continue with other settings.

    Raises:
        RunError: the folder holds a ``run.json`` of another program, a finished run, or an interrupted one with another
            configuration.
    """
    if not run.description.exists():
        return
    _check_ours(run)
    if overwrite:
        return
    if resume:
        _check_same(run, config)
    elif is_finished(run):
        raise RunError(
            f"run {run.folder} is already trained; choose another folder, or pass --overwrite to train it anew"
        )
    else:
        raise RunError(f"run {run.folder} was interrupted; pass --resume to continue it, or --overwrite to start again")


def _check_ours(run: Run) -> None:
    try:
        ours = "vitrail" in run.read().versions
    except VitrailError as error:
        raise RunError(f"{error}; nothing in {run.folder} was changed; choose another folder") from error
    if not ours:
        raise RunError(f"{run.description} was not written by Vitrail; choose another folder")


def _check_same(run: Run, config: TrainConfig) -> None:
    differing = differing_settings(run.read().training, config)
    differences = [text for text in differing if text.partition(" ")[0] not in FREE_FIELDS]
    if differences:
        raise RunError(
            f"run {run.folder} was started with other settings: {'; '.join(differences)}; "
            f"pass the same ones to --resume, or --overwrite to start again"
        )


def clear(run: Run) -> None:
    """Delete the files of a run, and nothing else in the folder.

    The description is deleted last: until then the folder is recognised as a run.
    """
    left = [path for each in (run, *run.quantized_runs()) for path in each.leftovers()]
    artefacts = [*left, *run.artefacts()]
    for path in artefacts:
        remove(path)
    folders = {folder for path in artefacts for folder in path.parents if folder.is_relative_to(run.folder)}
    for folder in sorted(folders - {run.folder}, reverse=True):  # inner ones first
        with suppress(OSError):  # it holds other files
            folder.rmdir()


def training_files(run: Run) -> TrainingFiles:
    """The files that the training of a run writes."""
    return TrainingFiles(metrics=run.metrics, checkpoints=run.checkpoints, logs=run.logs)


def describe(
    run: Run,
    config: ResolvedConfig,
    task: Task,
    splits: DataSplits[Any],
    preprocessing: Preprocessing,
    precision: str,
    weights_remarks: Sequence[str] = (),
) -> None:
    """Write ``run.json`` at the start of training.

    Raises:
        RunError: the run was started with other images.
    """
    known = run.read() if run.description.exists() else None
    images = known_images(splits)
    if known:
        require_code(known.own_code, run.folder)
        _check_same_images(run, known.data.fingerprint == splits.fingerprint, set(images), config)
    model = _describe_model(config, task, preprocessing)
    own_code = used_code(config.model, model["fields"], task.name, config.options)
    run.update(
        model=model,
        task=task.name,
        **find_task(task.name).describe_data(splits),
        **({} if task.input_shape is None else {"input_shape": list(task.input_shape)}),
        preprocessing=preprocessing.to_dict(),
        weights_remarks=list(weights_remarks),
        data=_describe_data(splits, config),
        training=config.to_dict(),
        **({"own_code": [entry.model_dump() for entry in own_code]} if own_code else {}),
        precision=precision,
        seed=config.seed,
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        command=known.command if known else typed_command(),
        status="training",
    )
    write_parts(run.images, images)
    keep_copies(own_code, run.code)


def _describe_model(config: ResolvedConfig, task: Task, preprocessing: Preprocessing) -> dict[str, Any]:
    fields = {
        "num_classes": task.backbone.num_classes,
        "image_size": list(preprocessing.image_size),
        "drop_path_rate": config.drop_path_rate,
    } | config.model_fields
    if config.weights is not None:
        fields |= decided_fields(task.backbone, config.model)
    num_params = sum(one.numel() for one in task.parameters()) - adapter_size(task)
    return {"name": config.model, "fields": fields, "num_params": num_params}


def _check_same_images(run: Run, alike: bool, images: set[KnownImage], config: TrainConfig) -> None:
    if not alike or (run.images.exists() and set(read_parts(run.images)) != images):
        raise RunError(
            f"run {run.folder} was started with other images or parts than {config.data.path} has now; "
            f"restore them to --resume, or pass --overwrite to start again"
        )


def _describe_data(splits: DataSplits[Any], config: TrainConfig) -> dict[str, Any]:
    return {
        "path": config.data.path,
        "fingerprint": splits.fingerprint,
        "num_train": len(splits.train),
        "num_val": len(splits.val),
        "num_test": len(splits.test) if splits.test is not None else 0,
        "skipped": list(splits.skipped),
        "remarks": [*splits.remarks, *splits.warnings],
    }


def typed_command() -> str:
    """The command line; an installed ``vitrail`` has no folder, so that the line works elsewhere."""
    program = Path(sys.argv[0])
    return shlex.join([program.name if program.name == "vitrail" else str(program), *sys.argv[1:]])


def finish(run: Run, config: ResolvedConfig, stopped: str = "") -> None:
    """Write ``model.safetensors`` from the checkpoint that ``config.keep`` selects, and note it in ``run.json``.

    A linear probe that the training started from stays the model where no epoch is better: it is the simpler one, and
    was not chosen among many. It reads only files, so that it also works if another process trained the epochs.

    Args:
        run: run whose epochs are done.
        config: every choice of the training.
        stopped: why training ended before its last epoch, where somebody ended it.

    Raises:
        TrainingError: the weights are not finite.
    """
    kind, files, recipe = find_task(config.task), training_files(run), run.read().recipe
    score, main = kind.score(config.keep_score), f"val_{kind.scores[0].name}"
    rows = recorded_rows(read_checkpoint(files.last)) if files.last.exists() else []
    known = recipe.known_probe_scores if recipe is not None and files.probe.exists() else {}
    scores = {f"val_{name}": value for name, value in known.items()}
    best = best_row(rows, score) if rows else None
    kept: dict[str, Any] = {"num_epochs": len(rows), "seconds": round(sum(row["seconds"] for row in rows), 3)}
    if best is not None:
        kept["best_score"] = best.get(main)
    if scores and (best is None or (config.keep == "best" and _is_as_good(scores, best, score))):
        state, kept = read_trained(files.probe), kept | {"keep": "probe", "epoch": 0} | scores
    else:
        path, row = (files.best, best) if config.keep == "best" else (files.last, rows[-1])
        assert row is not None
        state, kept = merged(task_state(read_checkpoint(path)), config), {"keep": config.keep, **row} | kept
    if wrong := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise diverged(f"{len(wrong)} weights of epoch {kept['epoch']} are not finite ({wrong[0]}, ...)", config)
    if told := stopped or stop_told(rows, score, config.patience, config.epochs):
        kept["stopped"] = told
    keep_weights(run, state, kept)


def _is_as_good(probe: Mapping[str, float], best: Mapping[str, Any], score: Score) -> bool:
    """Whether the best epoch is not better than the probe in the score that decides."""
    name = f"val_{score.name}"
    return name in probe and not score.rank(best[name]) > score.rank(probe[name])


def keep_weights(run: Run, state: Mapping[str, torch.Tensor], kept: Mapping[str, Any]) -> None:
    """Write ``model.safetensors``, and note in ``run.json`` that the run is trained.

    Args:
        run: run that :func:`describe` has described.
        state: state dict of the task.
        kept: entry ``trained`` of ``run.json``, see :class:`~vitrail.runs.description.TrainedEntry`.
    """
    with atomic_path(run.weights) as temporary:
        temporary.write_bytes(save({name: value.contiguous() for name, value in state.items()}))
    forget_answers(run.checkpoints)
    run.update(status="trained", trained=dict(kept))
