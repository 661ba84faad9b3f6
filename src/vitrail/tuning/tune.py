"""A tune: trainings with different settings, one after the other, the next one where the earlier ones were good."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitrail.core.errors import ConfigError
from vitrail.core.extras import import_extra
from vitrail.core.paths import user_path
from vitrail.core.progress import Seconds
from vitrail.training import TrainConfig
from vitrail.tuning.search import MOST_TRIALS, Search
from vitrail.tuning.space import read_space
from vitrail.tuning.storage import TuneFolder
from vitrail.tuning.study import quiet_optuna
from vitrail.tuning.tuned import TuneReport


def tune(
    config: TrainConfig,
    *,
    run: str | Path = "runs/tune",
    space: str | Path | Mapping[str, Any] | None = None,
    vary: Sequence[str] = (),
    trials: int | None = None,
    prune: bool = True,
    storage: str = "",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    clock: Seconds = time.monotonic,
) -> TuneReport:
    """Train with different settings, each as a run of its own, and find the best ones on the validation images.

    The first trial has the recipe's own values, so that the best one is never worse there. A TPE sampler draws the
    others, and a trial that is worse than half of the others at the same share of its training ends early.

    Args:
        config: what is the same in all trials; its ``minutes`` are those of all together.
        run: folder of the tune.
        space: what varies, as a YAML file or its contents. Default: what matters for the recipe, around its values.
        vary: settings that vary, as ``NAME=LOW:HIGH``, ``NAME=LOW:HIGH:log`` or ``NAME=A,B,C``.
        trials: number of trials of all processes together. Default: 12, or as many as ``minutes`` allow.
        prune: end bad trials early.
        storage: URL of a database that machines share, or path of a journal. Default: a journal in the folder.
        resume: go on with a tune, also beside other processes, or start one if there is none.
        overwrite: delete the tune in the folder.
        progress: print a line for each trial, and show a bar of the running epoch in a terminal.
        clock: seconds.

    Returns:
        the trials, the best one, and what to say of it.

    Raises:
        ConfigError: the space or a setting is not allowed.
        MissingDependencyError: Optuna is not installed.
        RunError: the folder holds other files, or a tune with other settings or images.
        TrainingError: every trial failed, or the tune was stopped.
        VitrailError: the images are unusable, or a file cannot be written.
    """
    import_extra("optuna", "optuna", "tune")
    _check(config, trials)
    axes = read_space(space, vary, replace(config, minutes=None))
    folder = TuneFolder(user_path(run))
    search = Search(config, folder, trials, prune=prune, storage=storage, progress=progress, clock=clock)
    with quiet_optuna():
        folder.check_storage(storage)
        folder.prepare(resume=resume, overwrite=overwrite)
        search.open(axes, resume=resume, anew=overwrite)
        search.go()
        return search.finish()


def _check(config: TrainConfig, trials: int | None) -> None:
    if trials is not None and not 1 <= trials <= MOST_TRIALS:
        raise ConfigError(f"{trials} trials are not allowed; give 1 to {MOST_TRIALS:,}")
    several = config.devices not in (1, "1")
    if several or config.num_nodes != 1:
        named = {"devices": config.devices} if several else {"num_nodes": config.num_nodes}
        raise ConfigError("trains each trial on one device; start one process for each device, with --resume", **named)
