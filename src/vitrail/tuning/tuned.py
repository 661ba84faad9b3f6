"""The result of a tune: its trials, the best one, and what to say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from vitrail.core.errors import TrainingError
from vitrail.core.files import write_json, write_text
from vitrail.core.import_code import imported_code
from vitrail.core.paths import typed_path
from vitrail.report.written import number, percent
from vitrail.runs.folder import PACKAGES
from vitrail.runs.run import Run
from vitrail.tasks import Score
from vitrail.training import TrainConfig
from vitrail.tuning.space import Axis, value_text, with_values
from vitrail.tuning.storage import VERSION, TuneFolder
from vitrail.tuning.trials import OWN, TuneTrial, best_trial

Z95 = 1.96
"""Half width of a 95 % interval, in standard deviations."""


@dataclass(frozen=True, kw_only=True)
class TuneReport:
    """The result of a tune.

    Attributes:
        folder: its folder.
        config: what is the same in all trials, with a model.
        recipe: the recipe that the first trial follows.
        space: what varied.
        score: what was compared, on the validation images.
        per_image: whether the score is a share of images.
        num_val: number of validation images.
        trials: all trials, by number.
        importances: name of a setting -> share of the variation that it explains; empty where it is not known.
        tested: number of a trial -> score of its run on the test images; empty without test images.
        num_test: number of test images.
        remarks: sentences on the course.
    """

    folder: TuneFolder
    config: TrainConfig
    recipe: str
    space: tuple[Axis, ...]
    score: Score
    per_image: bool
    num_val: int
    trials: tuple[TuneTrial, ...]
    importances: dict[str, float] = field(default_factory=dict)
    tested: dict[int, float] = field(default_factory=dict)
    num_test: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def best(self) -> TuneTrial | None:
        """The best trial; None as long as none is complete."""
        return best_trial(self.trials, self.score)

    @property
    def own(self) -> TuneTrial | None:
        """The trial with the recipe's own values; None if it is not complete."""
        return next((one for one in self.trials if one.number == OWN and one.state == "complete"), None)

    @property
    def best_run(self) -> Run | None:
        """The run of the best trial; None if it is on another machine."""
        best = self.best
        return self.folder.run(best.folder) if best is not None and best.folder else None

    def config_of(self, trial: TuneTrial) -> TrainConfig:
        """The configuration of a trial, which trains it again."""
        paths = {axis.name: axis.path for axis in self.space}
        return with_values(self.config, {paths[name]: value for name, value in trial.values.items()})

    def score_text(self, value: float | None) -> str:
        """A score for people."""
        return percent(value) if self.score.percent else number(value)

    def columns(self) -> list[str]:
        """Headings of :meth:`rows`."""
        return ["trial", *(axis.title for axis in self.space), f"val {self.score.title}", "epochs", "result"]

    def rows(self) -> list[list[str]]:
        """One row of texts for each trial; see :meth:`columns`."""
        return [
            [
                str(one.number),
                *(value_text(one.values[axis.name]) if axis.name in one.values else "" for axis in self.space),
                self.score_text(one.score),
                str(one.num_epochs or ""),
                self._result(one),
            ]
            for one in self.trials
        ]

    def _result(self, trial: TuneTrial) -> str:
        words: list[str] = [trial.state if trial.state != "complete" else ""]
        if trial == self.best:
            words.append("best")
        if trial.number == OWN:
            words.append(f"the recipe's own values ({self.recipe})")
        if trial.kept == "probe" and self.recipe != "probe":
            words.append("the probe was kept")
        if trial.state == "running":
            words.append(f"on {trial.host}")
        return ", ".join(filter(None, words))

    def verdict(self) -> list[str]:
        """What came of the tune, in sentences, the last one on how much to believe of it."""
        best, own = self.best, self.own
        if best is None:
            return ["No trial is complete yet."]
        told = f"Best: trial {best.number}, {self.score_text(best.score)} val {self.score.title}"
        if own is not None and own != best:
            told += f"; the recipe's own values reach {self.score_text(own.score)}"
        elif own == best:
            told += ", with the recipe's own values"
        lines = [f"{told}."]
        if best.folder == "":
            lines.append(f"Its run is on {best.host}.")
        doubt = f"The score of the best is optimistic: it was chosen by it, on {self.num_val} validation images"
        if self.per_image and best.score is not None:
            half = Z95 * math.sqrt(max(best.score * (1 - best.score), 0.0) / max(self.num_val, 1))
            doubt += f" (± {100 * half:.0f} points, 95 %)"
        if self.tested:
            figures = [
                f"trial {name}{' (own values)' * (name == OWN)} {self.score_text(value)}"
                for name, value in self.tested.items()
            ]
            doubt += f". On {self.num_test} test images, which nothing was chosen by: {', '.join(figures)}"
        elif not self.num_test:
            doubt += "; images in a folder test/ would tell the truth"
        return [*lines, f"{doubt}.", *self.remarks]

    def next_commands(self) -> list[str]:
        """Commands for what comes next: the run of the best trial, and its settings for another training."""
        if self.best is None:
            return []
        again = f"vitrail train --config {typed_path(self.folder.best_config)} --run RUN"
        run = self.best_run
        return [*([f"vitrail evaluate {typed_path(run.folder)}"] if run else []), again]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        from importlib.metadata import version

        best, run = self.best, self.best_run
        known = self.folder.read()
        return {
            "version": VERSION,
            "place": known.place,
            "storage": known.storage,
            "recipe": self.recipe,
            "score": asdict(self.score),
            "num_val": self.num_val,
            "num_test": self.num_test,
            "space": {axis.name: axis.definition for axis in self.space},
            "trials": [asdict(one) for one in self.trials],
            "best": None if best is None else best.number,
            "best_run": None if run is None else str(run.folder.relative_to(self.folder.folder)),
            "importances": self.importances,
            "tested": {str(name): value for name, value in self.tested.items()},
            "training": self.config.to_dict(),
            "verdict": self.verdict(),
            "versions": {name: version(name) for name in (*PACKAGES, "optuna")},
        }

    def write(self) -> None:
        """Write ``tune.json``, and ``best.yaml`` where a trial is complete.

        Raises:
            VitrailError: a file cannot be written.
        """
        write_json(self.folder.results, self.to_dict())
        if (best := self.best) is not None:
            write_text(self.folder.best_config, config_yaml(self.config_of(best)))

    def require_best(self, log: Mapping[str, str]) -> TuneTrial:
        """The best trial.

        Args:
            log: folder of a trial -> path of what it told.

        Raises:
            TrainingError: no trial is complete; the message has the reason of the first failure, and its log.
        """
        if (best := self.best) is not None:
            return best
        failed = [one for one in self.trials if one.state == "failed"]
        if not failed:
            why = "".join(f"; {remark}" for remark in self.remarks)
            raise TrainingError(f"no trial of {self.folder.folder} is complete{why}; go on with --resume")
        first = failed[0]
        place = f"its log is {log[first.folder]}" if first.folder in log else f"its log is on {first.host}"
        raise TrainingError(
            f"all {len(failed)} trials failed, the first because: {first.note.rstrip('.')}; {place}; mend this, or "
            f"give another space with --vary, and start again with --overwrite"
        )


def config_yaml(config: TrainConfig) -> str:
    """A configuration as ``--config`` reads it, with the own code that it needs."""
    code = imported_code()
    plain = {**({"import": code} if code else {}), **config.to_dict()}
    return yaml.safe_dump(_listed(plain), sort_keys=False, allow_unicode=True)


def _listed(value: Any) -> Any:
    """Plain values with lists in place of tuples, which YAML does not have."""
    if isinstance(value, dict):
        return {name: _listed(inner) for name, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, list | tuple) else value
