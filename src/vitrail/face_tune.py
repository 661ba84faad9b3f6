"""The Python interface of a tune."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitrail.core.config import convert
from vitrail.core.errors import ConfigError, RunError
from vitrail.core.progress import is_watched
from vitrail.data import DataConfig
from vitrail.face import TrainedRun, open_run
from vitrail.report.rows import Rows
from vitrail.runs.settings import configured
from vitrail.training import TrainConfig
from vitrail.tuning import TuneReport, tune as tune_settings, write_tune_page
from vitrail.tuning.trials import TuneTrial


class Tuned(Rows[TuneTrial]):
    """The trials of a tune, which print as a table with a verdict.

    Attributes:
        report: the whole result.
    """

    def __init__(self, report: TuneReport) -> None:
        cells = dict(zip((one.number for one in report.trials), report.rows(), strict=True))
        columns = {
            heading: lambda trial, index=index: cells[trial.number][index]
            for index, heading in enumerate(report.columns())
        }
        super().__init__(report.trials, columns, report.verdict())
        self.report = report

    @property
    def best(self) -> TrainedRun:
        """The run of the best trial, with the verbs as methods.

        Raises:
            RunError: it is on another machine.
        """
        if (run := self.report.best_run) is None:
            raise RunError(f"the best run is not in {self.report.folder.folder}; {self.report.verdict()[1]}")
        return open_run(run)

    @property
    def config(self) -> TrainConfig:
        """The configuration of the best trial, which :func:`vitrail.train` takes."""
        best = self.report.best
        assert best is not None
        return self.report.config_of(best)


def tune(
    data: str | Path | DataConfig | TrainConfig,
    *,
    run: str | Path = "runs/tune",
    space: str | Path | Mapping[str, Any] | None = None,
    vary: str | Sequence[str] = (),
    trials: int | None = None,
    storage: str = "",
    prune: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> Tuned:
    """Search for the settings of a training that suit the images; each trial is a run.

    Example::

        import vitrail

        found = vitrail.tune("photos/", minutes=20, run="runs/tune")
        print(found)  # a table, and how much to believe of it
        found.best.export("onnx")
        vitrail.train(found.config, run="runs/again")

    Args:
        data: folder of images, or a whole configuration.
        run: folder that the runs of all trials and the result are written to.
        space: what varies, such as ``{"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "lora": [0, 4]}``,
            or a YAML file with such rows. Default: the learning rate and a few others around the recipe's values.
        vary: the same as texts, such as ``"learning_rate=1e-5:1e-3:log"``.
        trials: number of trials of all processes together. Default: 12, or as many as ``minutes`` allow.
        storage: URL of a database that machines share, or path of a journal. Default: a journal in the folder.
        prune: end trials early that are worse than half of the others.
        resume: go on with a tune, also beside other processes that work on it.
        overwrite: delete the tune in the folder.
        progress: show a line for each trial and bars. Default: in terminals and notebooks.
        **settings: options of ``vitrail train`` that are the same in all trials; ``minutes`` are those of all together.

    Returns:
        the trials; ``best`` is the run of the best one, ``config`` its configuration.

    Raises:
        VitrailError: a setting is not allowed, Optuna is missing, the images are unusable, or all trials failed.
    """
    if isinstance(data, TrainConfig):
        if settings:
            raise ConfigError(f"{', '.join(settings)} and a whole TrainConfig: put them into the configuration")
        config = data
    else:
        source = asdict(data) if isinstance(data, DataConfig) else {"path": os.fspath(data)}
        config = configured(TrainConfig, settings, {"data": source})
    report = tune_settings(
        config,
        run=run,
        space=space,
        vary=(vary,) if isinstance(vary, str) else tuple(vary),
        trials=convert(int | None, trials, "trials"),
        storage=storage,
        prune=convert(bool, prune, "prune"),
        resume=convert(bool, resume, "resume"),
        overwrite=convert(bool, overwrite, "overwrite"),
        progress=is_watched() if progress is None else progress,
    )
    write_tune_page(report)
    return Tuned(report)
