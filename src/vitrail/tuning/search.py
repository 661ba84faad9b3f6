"""One process of a tune: it takes trials, trains them, and tells what came of them."""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException

from vitrail.core.errors import LockedError, RunError, TrainingError, VitrailError
from vitrail.core.faults import find_fault
from vitrail.core.files import finite_only
from vitrail.core.paths import typed_path
from vitrail.core.progress import Seconds, tell, time_text
from vitrail.runs.evaluate import WEIGHTS, evaluate_run
from vitrail.runs.recipe import decide, num_layers, with_model
from vitrail.runs.run import Run
from vitrail.runs.train import train
from vitrail.tasks import Score, find_task
from vitrail.training import TrainConfig
from vitrail.training.recipes import Decided
from vitrail.training.recorder import Row
from vitrail.tuning.default_space import default_space
from vitrail.tuning.space import Axis, num_combinations, read_space, value_at, value_text, with_values
from vitrail.tuning.storage import KEY, TuneFolder, check_study, open_study
from vitrail.tuning.study import Asked, Ledger
from vitrail.tuning.trial_log import trial_log
from vitrail.tuning.trial_run import cut_short, remove_checkpoints
from vitrail.tuning.trials import GRID, PRUNED, Reached, TuneTrial, best_by, busy_seconds, grid_steps
from vitrail.tuning.tuned import TuneReport

LOG = logging.getLogger(__name__)

USUAL_TRIALS = 12
"""Trials where neither their number nor a time is given."""

MOST_TRIALS = 10_000
"""Trials where only a time is given; and the most that may be asked for."""

FEWEST_IN_TIME = 5
"""Trials that must have room in the time: none takes more than its share."""

WORTH_BEGINNING = 0.5
"""Share of a trial's usual time below which none is begun."""

FAILURES_IN_A_ROW = 3
"""Failures at the beginning after which it is no matter of settings."""

CHECKED_BY_MODEL = ("model", "model_fields", "image_size")
"""Fields whose values are tried on a model without weights before anything is trained."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all trials have in common.

    Attributes:
        config: configuration with a model, without a time.
        decided: what the recipe makes of it.
        score: validation score that is compared.
        splits: the images.
    """

    config: TrainConfig
    decided: Decided
    score: Score
    splits: Any


class Search:
    """One process of a tune."""

    def __init__(
        self,
        config: TrainConfig,
        folder: TuneFolder,
        trials: int | None,
        *,
        prune: bool,
        storage: str,
        progress: bool,
        clock: Seconds,
    ) -> None:
        self.asked, self.folder, self.storage, self.prune = config, folder, storage, prune
        self.most = trials or (USUAL_TRIALS if config.minutes is None else MOST_TRIALS)
        self.limited = trials is not None or config.minutes is None
        self.progress, self.clock = progress, clock
        self.minutes, self.started, self.used = config.minutes, clock(), 0.0
        self.remarks: list[str] = []
        self.ground: Ground
        self.space: tuple[Axis, ...]
        self.ledger: Ledger

    def open(self, axes: tuple[Axis, ...], *, resume: bool, anew: bool) -> None:
        """Read the images, open the storage, and queue the first trial."""
        config, sentence = with_model(replace(self.asked, minutes=None))
        kind = find_task(config.task)
        score = kind.score(config.keep_score)
        kind.read_options(config.options)
        splits = kind.load_data(config.data, progress=self.progress)
        decided = decide(config, splits)
        self.ground = Ground(config=config, decided=decided, score=score, splits=splits)
        with self.folder.claimed():
            study = open_study(self.folder, self.storage, maximize=score.higher_is_better, anew=anew)
            begun = bool(study.get_trials(deepcopy=False))
            if begun and not resume:
                raise RunError(f"storage has a tune {study.study_name} already; pass --resume to take part in it")
            if not axes and begun and KEY in study.user_attrs:
                axes = read_space(study.user_attrs[KEY]["space"], (), config)
            per_image = kind.task.per_image
            self.space = axes or read_space(default_space(self.asked, decided, per_image=per_image), (), config)
            self._check_models()
            check_study(study, self._common(), self.folder)
            self.ledger = Ledger(
                study,
                self.space,
                score,
                self.folder.runs,
                self.folder.identify(self.storage),
                seed=config.seed,
                shared=bool(self.storage),
                prune=self.prune,
            )
            self.ledger.begin(self._first_values())
            self.ledger.recover()
            self.used = busy_seconds(self.ledger.intervals(), time.time())
            self._report().write()
        self._say(self._opening(sentence))

    def _common(self) -> dict[str, Any]:
        """What every process and every later call must have the same."""
        plain: dict[str, Any] = finite_only(self.ground.config.to_dict())
        return {
            "space": {axis.name: axis.definition for axis in self.space},
            "training": plain,
            "fingerprint": self.ground.splits.fingerprint,
            "score": self.ground.score.name,
        }

    def _check_models(self) -> None:
        """Build every model that the space has, without weights.

        Raises:
            VitrailError: there is no such model, or it does not take a value.
        """
        for axis in self.space:
            if axis.path[0] in CHECKED_BY_MODEL:
                for value in axis.choices or (axis.low, axis.high):
                    num_layers(with_values(self.ground.config, {axis.path: value}), self.ground.splits)
            if axis.path[0] == "options":
                for value in axis.choices or (axis.low, axis.high):
                    options = with_values(self.ground.config, {axis.path: value}).options
                    find_task(self.ground.config.task).read_options(options)

    def _first_values(self) -> dict[str, Any]:
        """The recipe's own values, or the nearest ones of the space."""
        values, moved = {}, []
        for axis in self.space:
            own = value_at(self.ground.decided.config, axis.path)
            values[axis.name] = axis.nearest(own)
            if axis.stored(values[axis.name]) != axis.stored(own):
                moved.append(f"{axis.title} {value_text(values[axis.name])} instead of {value_text(own)}")
        if moved:
            self.remarks.append(f"The recipe's own values are not in the space: the first trial has {'; '.join(moved)}")
        return values

    def _opening(self, chosen: str) -> list[str]:
        combinations = num_combinations(self.space)
        count = min(self.most, combinations)
        limits = [f"{count:.0f} trials"] if self.limited or combinations < self.most else []
        limits += [f"{self.minutes:g} min"] if self.minutes is not None else []
        known = sum(one.done for one in self.ledger.trials())
        done = f", {known} of them done" if known else ""
        what = f"{len(self.ground.splits.train)} training and {len(self.ground.splits.val)} validation images"
        line = (
            f"Tune: {what}; model: {self.ground.config.model}; recipe: {self.ground.decided.recipe}; "
            f"{' in '.join(limits)}{done}; compared: val {self.ground.score.title}; "
            f"{len(self.space)} settings: {'; '.join(map(str, self.space))}"
        )
        return [line, chosen, *self.ground.splits.remarks, *self.ground.splits.warnings, *self.remarks]

    def go(self) -> None:
        """Run trials until there are enough of them, the time is over, or nothing new is left."""
        failures = 0
        while (why := self._time_is_over()) == "":
            try:
                with ExitStack() as stack:
                    with self.folder.claimed():
                        self.ledger.recover()
                        if (asked := self.ledger.ask(self.most)) is None:
                            return
                        run = self.folder.run(asked.folder)
                        stack.enter_context(run.writing())
                    failures += self._run(asked, run)
            except _StoppedError as stopped:  # the run's lock is free by now
                with self.folder.claimed():
                    self.ledger.give_back(stopped.asked)
                raise self._told(stopped.cause) from stopped.cause
            with self.folder.claimed():
                report = self._report()
                report.write()
            self._say([self._line(report, asked.number)])
            if report.best is None and failures >= FAILURES_IN_A_ROW:
                return
        self.remarks.append(why)

    def _run(self, asked: Asked, run: Run) -> bool:
        """Train one trial; whether it failed.

        Raises:
            _StoppedError: it was stopped, or the machine has a fault that other settings do not mend.
        """
        with trial_log(self.folder.log(asked.folder), f"trial {asked.number}", self.clock) as log:
            try:
                config = self._config(asked, run)
                train(config, run=run, resume=True, progress=self.progress, judge=self._judge(asked))
                reached = Reached.read(run.read(), self.ground.score)
                if math.isnan(reached.score):
                    raise TrainingError(f"the validation {self.ground.score.title} is no number")
                self.ledger.tell(asked, reached)
                remove_checkpoints(run)
            except BaseException as error:
                log.stream.write(traceback.format_exc())  # type: ignore[attr-defined]  # a FileHandler
                if _is_stopped(error) or isinstance(error, LockedError) or self._is_fault(error):
                    raise _StoppedError(asked, error) from error
                if not isinstance(error, Exception):
                    raise
                reason = str(error) if isinstance(error, VitrailError) else f"{type(error).__name__}: {error}"
                self.ledger.fail(asked, " ".join(reason.split()))
                return True
        return False

    def _config(self, asked: Asked, run: Run) -> TrainConfig:
        """The configuration of a trial; one that goes on keeps its time."""
        config = with_values(self.ground.config, asked.values)
        if run.description.exists():
            return replace(config, minutes=run.read().training.minutes)
        if self.minutes is None:
            return config
        share = self.minutes / min(FEWEST_IN_TIME, self.most, num_combinations(self.space))
        return replace(config, minutes=max(min(share, self._left() / 60), 1e-3))

    def _judge(self, asked: Asked) -> Any:
        score, steps = self.ground.score, 0

        def judge(rows: Sequence[Row], num_epochs: int) -> str:
            nonlocal steps
            reached = grid_steps(len(rows), num_epochs)
            new = {step: best_by(rows, step, num_epochs, score) for step in range(steps + 1, reached + 1)}
            steps = reached
            if not self.ledger.prunes(asked, new) or reached >= GRID:
                return ""
            return f"{PRUNED} after epoch {len(rows)} of {num_epochs}: half of the other trials were better by then"

        return judge

    def _left(self) -> float:
        """Seconds of the time that are left."""
        if self.minutes is None:
            return math.inf
        return 60 * self.minutes - self.used - (self.clock() - self.started)

    def _time_is_over(self) -> str:
        """Why no other trial is begun; "" where one is."""
        left = self._left()
        lasted = [one.seconds for one in self.ledger.trials() if one.state == "complete"]
        if left > 0 and (not lasted or math.isinf(left) or left >= WORTH_BEGINNING * fmean(lasted)):
            return ""
        if not lasted:
            return f"The time of {self.minutes:g} min was over before a trial was complete; give more with --minutes"
        more = math.ceil((self.minutes or 0) + FEWEST_IN_TIME * fmean(lasted) / 60)
        count = len(lasted)
        if count == 1:
            return (
                f"The time was over after one trial, so that nothing was compared; --minutes {more} has room for more"
            )
        return f"The time of {self.minutes:g} min was over after {count} complete trials"

    def _line(self, report: TuneReport, number: int) -> str:
        trial = report.trials[number - 1]
        count = f"{number}/{self.most}" if self.limited else str(number)
        words = [f"trial {count}", *(f"{axis.title} {value_text(trial.values.get(axis.name))}" for axis in self.space)]
        if trial.state == "failed":
            words.append(f"failed: {trial.note}; log: {self.folder.log(trial.folder)}")
        else:
            words.append(f"val {report.score_text(trial.score)}")
        if trial.state == "pruned":
            words.append(trial.note.partition(":")[0].lower())
        if (best := report.best) is not None:
            words.append(f"best {report.score_text(best.score)} ({best.number})")
        return "  ".join([*words, f"left {time_text(self._expected(report.trials))}"])

    def _expected(self, trials: Sequence[TuneTrial]) -> float:
        """Seconds that the tune will take."""
        lasted = [one.seconds for one in trials if one.done and one.seconds]
        count = min(self.most, num_combinations(self.space)) - sum(one.done for one in trials)
        busy = max(sum(one.state == "running" for one in trials), 1)
        open_ended = math.inf if not self.limited else (fmean(lasted) if lasted else 0.0) * count / busy
        return max(min(self._left(), open_ended), 0.0)

    def finish(self) -> TuneReport:
        """The result, with the test images where there are any.

        Raises:
            TrainingError: no trial is complete.
        """
        report = self._report()
        logs = {one.folder: str(self.folder.log(one.folder)) for one in report.trials if one.folder}
        best = report.require_best(logs)
        tested, num_test = {}, 0
        if (test := self.ground.splits.test) is not None and (num_test := len(test)):
            for trial in dict.fromkeys(one.number for one in (report.own, best) if one and one.folder):
                evaluation = evaluate_run(self.folder.run(f"{trial:03d}"), progress=self.progress)
                tested[trial] = float(evaluation["reports"][WEIGHTS][self.ground.score.name])
        if (run := report.best_run) is not None:
            self.remarks += cut_short(run)
        running = [one for one in report.trials if one.state == "running"]
        if running:
            self.remarks.append(f"{len(running)} trials still run on {', '.join(sorted({o.host for o in running}))}")
        report = replace(
            report,
            tested=tested,
            num_test=num_test,
            importances=self.ledger.importances(),
            remarks=tuple(self.remarks),
        )
        with self.folder.claimed():
            report.write()
        return report

    def _report(self) -> TuneReport:
        kind = find_task(self.ground.config.task)
        return TuneReport(
            folder=self.folder,
            config=self.ground.config,
            recipe=self.ground.decided.recipe,
            space=self.space,
            score=self.ground.score,
            per_image=kind.task.per_image and self.ground.score == kind.scores[0],
            num_val=len(self.ground.splits.val),
            trials=tuple(self.ledger.trials()),
            remarks=tuple(self.remarks),
        )

    def _say(self, lines: Sequence[str]) -> None:
        for line in filter(None, lines):
            tell(LOG, line, progress=self.progress)

    def _is_fault(self, error: BaseException) -> bool:
        """Whether the machine has a fault, such as a full disk, that no setting of the space mends."""
        fault = find_fault(error)
        return fault is not None and not {axis.path[-1] for axis in self.space} & {*fault.settings, "model"}

    def _told(self, error: BaseException) -> VitrailError:
        """What stopped the tune, and how to go on."""
        done = sum(one.done for one in self.ledger.trials())
        again = f"go on with: vitrail tune --run {typed_path(self.folder.folder)} --resume (and the same options)"
        fault = find_fault(error)
        why = "" if _is_stopped(error) else f"{fault.what}; {fault.remedy}; " if fault else f"{error}; "
        count = f" of {self.most}" if self.limited else ""
        return TrainingError(f"{why}tuning was stopped after {done}{count} trials; {again}")


class _StoppedError(Exception):
    """A trial was stopped, and can go on."""

    def __init__(self, asked: Asked, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.asked, self.cause = asked, cause


def _is_stopped(error: BaseException | None) -> bool:
    """Whether Ctrl-C or SIGTERM is behind an error."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt | SystemExit | SIGTERMException):
            return True
        error = error.__cause__ or error.__context__
    return False
