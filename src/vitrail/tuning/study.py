"""The trials of a tune in Optuna's storage, which several processes and machines may share."""

from __future__ import annotations

import math
import os
import platform
import random
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitrail.core.errors import LockedError
from vitrail.core.files import json_text
from vitrail.core.lock import locked
from vitrail.runs.run import Run
from vitrail.tasks import Score
from vitrail.tuning.space import Axis, num_combinations
from vitrail.tuning.trials import OWN, PRUNED, Reached, TuneTrial

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

FEWEST_DRAWN, MOST_DRAWN = 4, 10
"""Trials that are drawn at random before their results guide the next ones: a third of all, within these limits."""

BEFORE_PRUNING = 4
"""Complete trials before one may be pruned."""

KEPT_TENTHS = 3
"""Tenths of a training in which nothing is pruned: the learning rate is still high, and the order may change."""

MOST_KILLS = 3
"""Times that a trial's process may be killed before the trial counts as failed."""

MOST_COUNTED = 1000
"""Combinations up to which a space is searched without repeating one."""

MOST_DRAWS = 100
"""Draws in a row that may repeat known settings before nothing new is expected."""

UNKNOWN_SECONDS = 120
"""Age from which a trial of a shared storage without an owner counts as left by a killed process."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A trial that is to be run by this process.

    Attributes:
        trial: what the storage has of it.
        number: its number, from 1.
        values: path of a setting -> value.
    """

    trial: Trial
    number: int
    values: dict[tuple[str, ...], Any]

    @property
    def folder(self) -> str:
        """Name of its run's folder."""
        return f"{self.number:03d}"


class Ledger:
    """Hands out trials, each to one process, and keeps what came of them.

    A trial whose process was killed is given out again under its number, so that its training goes on. Callers of
    :meth:`ask`, :meth:`recover` and :meth:`begin` hold the lock of the tune's folder.

    Args:
        study: Optuna's study.
        space: what varies.
        score: what is compared.
        runs: folder of the runs.
        place: identity of the tune's folder.
        seed: seed of the draws.
        shared: whether machines without a common folder use the storage.
        prune: whether bad trials end early.
    """

    def __init__(
        self,
        study: Study,
        space: Sequence[Axis],
        score: Score,
        runs: Path,
        place: str,
        *,
        seed: int,
        shared: bool,
        prune: bool,
    ) -> None:
        from optuna.pruners import MedianPruner, NopPruner

        self.study, self.space, self.score, self.runs, self.place = study, tuple(space), score, runs, place
        self._shared = shared
        self._entropy = (seed, *([int(place[:8], 16)] if shared else []))
        self._finite = num_combinations(space) <= MOST_COUNTED
        median = MedianPruner(n_startup_trials=BEFORE_PRUNING, n_warmup_steps=KEPT_TENTHS)
        study.pruner = median if prune else NopPruner()

    def begin(self, values: Mapping[str, Any]) -> None:
        """Queue the first trial, if there is none; its settings are values of the space, by name."""
        if not self._known():
            stored = {axis.name: axis.stored(values[axis.name]) for axis in self.space}
            self.study.enqueue_trial(stored)

    def ask(self, most: int) -> Asked | None:
        """The next trial; None where there are ``most`` of them, or nothing new is left to try."""
        from optuna.trial import TrialState

        for _ in range(MOST_DRAWS):
            known = self._known()
            waiting = any(one.state is TrialState.WAITING for one in known)
            count = len(_roots(known))
            if not waiting and (count >= most or (self._finite and not self._untried(known))):
                return None
            self.study.sampler = self._sampler(count, most)
            trial = self.study.ask()
            stored = {axis.name: _suggest(trial, axis) for axis in self.space}
            twin = None if "retry" in trial.user_attrs else _twin_of(trial, stored, known)
            if twin is None:
                number = self._number(trial.number)
                owner = {"place": self.place, "host": platform.node(), "began": time.time()}
                for name, value in owner.items():
                    trial.set_user_attr(name, value)
                values = {axis.path: axis.value_of(stored[axis.name]) for axis in self.space}
                return Asked(trial=trial, number=number, values=values)
            self._repeat(trial, twin)
        return None

    def tell(self, asked: Asked, reached: Reached) -> None:
        """Keep what a trial reached."""
        from optuna.trial import TrialState

        facts = reached.facts | {"score": reached.score, "note": reached.stopped}
        self._note(asked.trial, facts)
        if reached.stopped.startswith(PRUNED):
            self.study.tell(asked.trial, state=TrialState.PRUNED)
        else:
            self.study.tell(asked.trial, reached.score)

    def fail(self, asked: Asked, reason: str) -> None:
        """Keep why a trial failed; its settings are not tried again."""
        from optuna.trial import TrialState

        self._note(asked.trial, {"note": reason})
        self.study.tell(asked.trial, state=TrialState.FAIL)

    def give_back(self, asked: Asked) -> None:
        """Let another process, or a later one, go on with a trial that was interrupted."""
        frozen = next(one for one in self._known() if one.number == asked.trial.number)
        self._retry(frozen, kills=frozen.user_attrs.get("kills", 0), seconds=time.time() - _began(frozen))

    def prunes(self, asked: Asked, values: Mapping[int, float]) -> bool:
        """Report the scores of some steps; whether the trial is worse at the last one than half of the others."""
        known = {step: value for step, value in values.items() if not math.isnan(value)}
        for step, value in known.items():
            asked.trial.report(value, step)
        return bool(known) and asked.number != OWN and asked.trial.should_prune()

    def recover(self) -> list[int]:
        """Queue the trials of killed processes of this folder anew; return their numbers."""
        from optuna.trial import TrialState

        found = []
        for one in self._known():
            if one.state is TrialState.RUNNING and self._is_lost(one):
                number = self._number(one.number)
                files = [path for path in (self.runs / f"{number:03d}").rglob("*") if path.is_file()]
                ended = max((path.stat().st_mtime for path in files), default=0.0)
                kills = one.user_attrs.get("kills", 0) + 1
                self._retry(one, kills=kills, seconds=max(ended - _began(one), 0.0))
                found.append(number)
        return found

    def trials(self) -> list[TuneTrial]:
        """All trials, by number; a trial that was given out again is one."""
        known = self._known()
        roots = _roots(known)
        latest = {root.number: root for root in roots}
        for one in known:
            if (root := one.user_attrs.get("retry")) in latest:
                latest[root] = one
        return [self._record(number, latest[root.number]) for number, root in enumerate(roots, 1)]

    def importances(self) -> dict[str, float]:
        """Setting -> share of the scores' variation that it explains (PED-ANOVA); empty of few or equal trials."""
        from optuna.importance import get_param_importances
        from optuna.trial import TrialState

        values = [one.value for one in self._known() if one.state is TrialState.COMPLETE]
        if len(values) < 2 * BEFORE_PRUNING or len(set(values)) < 2 or len(self.space) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice for authors of other programs
            return {name: float(share) for name, share in get_param_importances(self.study).items()}

    def intervals(self) -> list[tuple[float, float]]:
        """Beginning and end of every attempt in this folder, in seconds of the system's clock."""
        mine = [one.user_attrs for one in self._known() if one.user_attrs.get("place") == self.place]
        return [(one["began"], one["began"] + one.get("seconds", math.inf)) for one in mine if "began" in one]

    def _known(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _number(self, number: int) -> int:
        known = self._known()
        root = known[number].user_attrs.get("retry", number)
        return next(place for place, one in enumerate(_roots(known), 1) if one.number == root)

    def _sampler(self, count: int, most: int) -> Any:
        from optuna.samplers import TPESampler

        drawn = min(max(most // 3, FEWEST_DRAWN), MOST_DRAWN)
        seed = int(np.random.SeedSequence((*self._entropy, count)).generate_state(1)[0])
        return TPESampler(seed=seed, n_startup_trials=drawn)

    def _repeat(self, trial: Trial, twin: FrozenTrial) -> None:
        """End a trial whose settings are known, with the same result; a training would repeat it bit for bit."""
        from optuna.trial import TrialState

        trial.set_user_attr("same_as", twin.number)
        if twin.state is TrialState.COMPLETE:
            self.study.tell(trial, twin.value)
        else:
            self.study.tell(trial, state=TrialState.FAIL)
        if self._finite and (untried := self._untried(self._known())):
            chosen = random.Random(json_text([*self._entropy, trial.number])).choice(untried)
            self.study.enqueue_trial(chosen)

    def _untried(self, known: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
        """The settings of a finite space that no trial has."""
        tried = [one.params or one.system_attrs.get("fixed_params", {}) for one in known]
        values = [[axis.stored(one) for one in axis.choices] or _whole_numbers(axis) for axis in self.space]
        names = [axis.name for axis in self.space]
        every = (dict(zip(names, one, strict=True)) for one in product(*values))
        return [one for one in every if one not in tried]

    def _is_lost(self, one: FrozenTrial) -> bool:
        """Whether nobody runs a trial: its folder's lock is free. Trials of other folders are theirs to judge."""
        place = one.user_attrs.get("place")
        if place is None:
            return not self._shared or time.time() - _began(one) > UNKNOWN_SECONDS
        if place != self.place:
            return False
        lock = Run(self.runs / f"{self._number(one.number):03d}").lock
        if not os.path.lexists(lock):
            return True
        try:
            with locked(lock, f"trial {lock.parent.name}", wait=0):
                return True
        except LockedError:
            return False

    def _retry(self, one: FrozenTrial, *, kills: int, seconds: float) -> None:
        """Queue the same trial, then end this attempt; after a kill in between the trial is not queued twice."""
        from optuna.trial import TrialState

        if one.state.is_finished():
            return  # another process has found it
        root = one.user_attrs.get("retry", one.number)
        given_up = kills >= MOST_KILLS
        queued = any(other.user_attrs.get("retry") == root and other.number > one.number for other in self._known())
        if not given_up and not queued:
            settings = one.system_attrs.get("fixed_params", {}) | one.params
            self.study.enqueue_trial(settings, user_attrs={"retry": root, "kills": kills})
        storage = self.study._storage  # noqa: SLF001 (Optuna's own way to end a trial of another process)
        told = f"its process was killed {kills} times; the memory may be too small" if given_up else "interrupted"
        storage.set_trial_user_attr(one._trial_id, "seconds", seconds)  # noqa: SLF001
        storage.set_trial_user_attr(one._trial_id, "note", told)  # noqa: SLF001
        storage.set_trial_state_values(one._trial_id, TrialState.FAIL)  # noqa: SLF001

    def _note(self, trial: Trial, facts: dict[str, Any]) -> None:
        began = trial.user_attrs.get("began", time.time())
        for name, value in (facts | {"seconds": round(time.time() - began, 1)}).items():
            trial.set_user_attr(name, value)

    def _record(self, number: int, one: FrozenTrial) -> TuneTrial:
        states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
        settings = one.system_attrs.get("fixed_params", {}) | one.params
        facts = one.user_attrs
        return TuneTrial(
            number=number,
            state=states.get(one.state.name, "waiting"),  # type: ignore[arg-type]  # a state
            values={axis.name: axis.value_of(settings[axis.name]) for axis in self.space if axis.name in settings},
            score=facts.get("score", one.value),
            loss=facts.get("loss"),
            num_epochs=facts.get("num_epochs", 0),
            kept=facts.get("kept", ""),
            note=facts.get("note", ""),
            folder=f"{number:03d}" if facts.get("place") == self.place else "",
            place=facts.get("place", ""),
            host=facts.get("host", ""),
            seconds=facts.get("seconds", 0.0),
        )


def _roots(known: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that have numbers of their own: neither given out again nor repeated."""
    return [one for one in known if not {"retry", "same_as"} & one.user_attrs.keys()]


def _twin_of(trial: Trial, stored: dict[str, Any], known: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Another trial with the same settings."""
    return next((one for one in known if one.params == stored and one.number != trial.number), None)


def _began(one: FrozenTrial) -> float:
    fallback = one.datetime_start.timestamp() if one.datetime_start else time.time()
    return float(one.user_attrs.get("began", fallback))


def _whole_numbers(axis: Axis) -> list[int]:
    return list(range(int(axis.low), int(axis.high) + 1))


def _suggest(trial: Trial, axis: Axis) -> Any:
    if axis.choices:
        return trial.suggest_categorical(axis.name, [axis.stored(one) for one in axis.choices])
    if axis.whole:
        return trial.suggest_int(axis.name, int(axis.low), int(axis.high), log=axis.log)
    return trial.suggest_float(axis.name, axis.low, axis.high, log=axis.log)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna's own lines are for programs; ours say the same."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
