"""The run folder around training: may it be written, where does training go on, what describes it."""

from __future__ import annotations

import platform
import shlex
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save

from vitrail.core.errors import RunError
from vitrail.core.files import atomic_path
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits
from vitrail.tasks import Score, Task, find_task
from vitrail.training.config import TrainConfig, differing_fields
from vitrail.training.recorder import (
    best_checkpoint,
    best_row,
    last_checkpoint,
    read_checkpoint,
    recorded_rows,
    task_state,
)

FREE_FIELDS = ("num_workers",)
"""Fields that do not change what is trained, so that a resumed run may have others."""

PACKAGES = ("vitrail", "torch", "torchvision", "lightning", "numpy")


def is_finished(run: Run) -> bool:
    """Its last epoch is done and its weights are written."""
    return run.description.exists() and run.read().get("status") == "trained" and run.weights.exists()


def logs_folder(run: Run) -> Path:
    """Where TensorBoard's files are."""
    return run.folder / "tensorboard"


def check_folder(run: Run, config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
    """Nothing is lost by accident, and nothing is continued with other settings.

    Raises:
        RunError: the folder holds something else, a finished run, or an interrupted one with another configuration.
    """
    if run.folder.exists() and not run.folder.is_dir():
        raise RunError(f"run folder {run.folder} is a file; choose another folder")
    if not run.description.exists():
        if run.folder.exists() and set(run.folder.iterdir()) - set(_leftovers(run)):
            raise RunError(f"folder {run.folder} is not empty and is not a run; choose another folder")
        return
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


def _check_same(run: Run, config: TrainConfig) -> None:
    known = run.read().get("training", {})
    wanted = config.to_dict()
    before, after = ({k: v for k, v in values.items() if k not in FREE_FIELDS} for values in (known, wanted))
    differences = differing_fields(before, after)
    if differences:
        raise RunError(
            f"run {run.folder} was started with other settings: {'; '.join(differences)}; "
            f"pass the same ones to --resume, or --overwrite to start again"
        )


def clear(run: Run) -> None:
    """Delete what a run consists of, and nothing else in the folder.

    The description goes last: until then the folder is recognised as a run.
    """
    files = [run.weights, run.metrics, run.evaluation, run.predictions, run.robustness, run.quantization]
    files += [run.bench, run.report]
    for path in [*files, *run.folder.glob("model*.onnx*")]:
        path.unlink(missing_ok=True)
    for folder in (run.checkpoints, run.figures, logs_folder(run)):
        shutil.rmtree(folder, ignore_errors=True)
    run.description.unlink(missing_ok=True)


def remove_leftovers(run: Run) -> None:
    """Delete what a killed process was writing."""
    for path in _leftovers(run):
        path.unlink(missing_ok=True)


def _leftovers(run: Run) -> list[Path]:
    targets = [run.description, run.weights, run.metrics, best_checkpoint(run), last_checkpoint(run)]
    return [found for path in targets for found in path.parent.glob(f".{path.stem}-*{path.suffix}")]


def describe(
    run: Run, config: TrainConfig, task: Task, splits: DataSplits[Any], preprocessing: Preprocessing, precision: str
) -> None:
    """Write ``run.json`` at the start of training.

    Raises:
        RunError: the run was started with other images.
    """
    known = run.read() if run.description.exists() else {}
    if known and known["data"]["fingerprint"] != splits.fingerprint:
        raise RunError(
            f"run {run.folder} was started with other images than {config.data.path} has now; "
            f"restore them to --resume, or pass --overwrite to start again"
        )
    fields = {
        "num_classes": task.backbone.num_classes,
        "image_size": list(preprocessing.image_size),
        "drop_path_rate": config.drop_path_rate,
    } | config.model_fields
    run.update(
        model={"name": config.model, "fields": fields, "num_params": sum(p.numel() for p in task.parameters())},
        task=task.name,
        **find_task(task.name).describe_data(splits),
        **({} if task.input_shape is None else {"input_shape": list(task.input_shape)}),
        preprocessing=preprocessing.to_dict(),
        data={
            "path": config.data.path,
            "fingerprint": splits.fingerprint,
            "num_train": len(splits.train),
            "num_val": len(splits.val),
            "num_test": len(splits.test) if splits.test is not None else 0,
            "skipped": list(splits.skipped),
        },
        training=config.to_dict(),
        precision=precision,
        seed=config.seed,
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        command=known.get("command", _command()),
        status="training",
    )


def _command() -> str:
    """What was typed; the installed program without its folder, so that the line works elsewhere."""
    program = Path(sys.argv[0])
    return shlex.join([program.name if program.name == "vitrail" else str(program), *sys.argv[1:]])


def finish(run: Run, config: TrainConfig, score: Score) -> None:
    """Write ``model.safetensors`` from the checkpoint that the configuration wants, and note it in ``run.json``;
    ``score`` decides which epoch is the best.

    It reads files alone, so that it makes no difference whether this process trained the epochs.
    """
    rows = recorded_rows(read_checkpoint(last_checkpoint(run)))
    path, row = (
        (best_checkpoint(run), best_row(rows, score)) if config.keep == "best" else (last_checkpoint(run), rows[-1])
    )
    state = {name: value.contiguous() for name, value in task_state(read_checkpoint(path)).items()}
    with atomic_path(run.weights) as temporary:
        temporary.write_bytes(save(state))
    kept = {"keep": config.keep, **row, "num_epochs": len(rows), "seconds": round(sum(r["seconds"] for r in rows), 3)}
    run.update(status="trained", trained=kept)
