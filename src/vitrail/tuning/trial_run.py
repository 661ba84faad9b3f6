"""The run of a trial, once it is trained."""

from __future__ import annotations

from vitrail.core.files import remove
from vitrail.runs.folder import training_files
from vitrail.runs.run import Run


def cut_short(run: Run) -> list[str]:
    """What to say of a training that its time ended, not its epochs."""
    description = run.read()
    minutes, epochs, trained = description.training.minutes, description.training.epochs, description.trained
    if minutes is None or trained is None or trained.stopped or trained.num_epochs >= epochs or not trained.num_epochs:
        return []
    done = f"{trained.num_epochs} of {epochs} epochs"
    return [f"The best trial had {minutes:.2g} min, which ended it after {done}; best.yaml has no limit"]


def remove_checkpoints(run: Run) -> None:
    """Delete the states of a finished training, which no verb needs: they are several times its weights."""
    files = training_files(run)
    for path in (files.last, files.best, files.probe):
        remove(path)
    if files.checkpoints.is_dir() and not any(files.checkpoints.iterdir()):
        files.checkpoints.rmdir()
