"""Whole tunes: their course, kills, several processes, time, failures."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pretended_training import Pretended, refusing

import vitrail
from vitrail.core.errors import ConfigError, LockedError, RunError, TrainingError, VitrailError
from vitrail.core.lock import locked
from vitrail.runs.run import Run
from vitrail.tasks import Score
from vitrail.training import TrainConfig
from vitrail.tuning import TuneReport, tune, write_tune_page
from vitrail.tuning.trials import TuneTrial, best_trial, busy_seconds, grid_steps

Search = Callable[..., TuneReport]
RATE = "learning_rate=1e-4:1e-1:log"


@pytest.fixture
def search(config: TrainConfig, tmp_path: Path) -> Search:
    """A tune of the learning rate in ``tmp_path / "tune"``."""

    def run(**given: Any) -> TuneReport:
        settings = {"run": tmp_path / "tune", "vary": (RATE,), "trials": 4, "progress": False} | given
        return tune(settings.pop("config", config), **settings)

    return run


def near(target: float) -> Callable[[TrainConfig], float]:
    """A score that is best at a learning rate."""
    return lambda config: 0.9 - abs((config.learning_rate or 0) - target)


def test_the_first_trial_is_the_recipes_own_and_the_best_is_kept(
    search: Search, pretended: Pretended, config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vitrail.tuning")
    pretended.score = near(0.05)
    report = search(trials=6)
    rates = [one.learning_rate for one, _ in pretended.trained]
    assert rates[0] == 1e-3
    assert len(set(rates)) == 6
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert [folder for _, folder in pretended.trained] == [f"{n:03d}" for n in range(1, 7)]
    best = min(rates, key=lambda rate: abs(rate - 0.05))
    assert report.best is not None
    assert report.best.values == {"learning_rate": best}
    assert report.own is not None
    assert report.own.number == 1
    assert report.tested.keys() == {1, report.best.number}
    lines = [line for line in caplog.messages if line.startswith("trial ")]
    assert len(lines) == 6
    assert lines[0].startswith("trial 1/6  learning rate 0.001  val 85.1 %  best 85.1 % (1)  left ")
    written = json.loads((tmp_path / "tune/tune.json").read_text())
    assert written["best"] == report.best.number
    assert written["best_run"] == f"trials/{report.best.number:03d}"
    assert written["versions"]["optuna"]
    again = TrainConfig.from_dict(yaml.safe_load((tmp_path / "tune/best.yaml").read_text()))
    assert again == replace(config, learning_rate=best)
    page = write_tune_page(report).read_text()
    assert "the recipe&#39;s own values" in page
    assert not (tmp_path / "tune/.lock").exists()


def test_equal_seeds_draw_equal_settings(search: Search, pretended: Pretended, tmp_path: Path) -> None:
    first = [one.values for one in search(trials=5).trials]
    assert [one.values for one in search(trials=5, run=tmp_path / "b").trials] == first


def test_a_tune_goes_on_and_grows(search: Search, pretended: Pretended) -> None:
    search(trials=2)
    with pytest.raises(RunError, match="has a tune already; pass --resume"):
        search()
    assert len(search(trials=4, resume=True).trials) == 4
    assert [folder for _, folder in pretended.trained] == ["001", "002", "003", "004"]
    report = search(trials=4, resume=True, vary=())  # what varies is known
    assert len(pretended.trained) == 4
    assert report.space[0].name == "learning_rate"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"vary": ("learning_rate=1e-4:1",)}, "other settings: space.learning_rate.high 0.1 -> 1.0"),
        ({"config": {"weight_decay": 0.3}}, "other settings: weight_decay 0.05 -> 0.3"),
        ({"storage": "sqlite:///other.db"}, "begun with its own journal"),
        ({"overwrite": True}, "contradict each other"),
    ],
)
def test_another_tune_is_refused(
    given: dict[str, Any], told: str, search: Search, pretended: Pretended, config: TrainConfig
) -> None:
    search(trials=1)
    with pytest.raises(VitrailError, match=told):
        search(resume=True, **given | ({"config": replace(config, **given["config"])} if "config" in given else {}))


def test_other_images_are_refused(search: Search, pretended: Pretended, config: TrainConfig, photos: Path) -> None:
    search(trials=1)
    fewer = replace(config, data=replace(config.data, path=str(photos / "train")))
    with pytest.raises(RunError, match="begun with other images"):
        search(resume=True, config=fewer)


class Killed(BaseException):
    """What stands for a process that ends without a word."""


def test_a_killed_trial_is_tried_again_in_its_folder(search: Search, pretended: Pretended, tmp_path: Path) -> None:
    def killed(config: TrainConfig) -> float:
        if len(pretended.trained) == 2:
            raise Killed
        return 0.5

    pretended.score = killed
    with pytest.raises(Killed):
        search()
    assert (tmp_path / "tune/trials/002/run.json").exists()
    report = search(resume=True)
    tried = [(one.learning_rate, folder) for one, folder in pretended.trained]
    assert tried[1] == tried[2]
    assert [folder for _, folder in tried] == ["001", "002", "002", "003", "004"]
    assert [one.number for one in report.trials] == [1, 2, 3, 4]
    assert {one.state for one in report.trials} == {"complete"}


@pytest.mark.slow
def test_a_trial_that_kills_again_and_again_is_left(search: Search, pretended: Pretended) -> None:
    def killed(config: TrainConfig) -> float:
        if pretended.trained[-1][1] == "002":
            raise Killed
        return 0.5

    pretended.score = killed
    for attempt in range(3):
        with pytest.raises(Killed):
            search(resume=attempt > 0)
    report = search(resume=True)
    assert [one.state for one in report.trials] == ["complete", "failed", "complete", "complete"]
    assert "killed 3 times" in report.trials[1].note


def test_ctrl_c_says_how_to_go_on_and_does_not_count_as_a_kill(search: Search, pretended: Pretended) -> None:
    def stopped(config: TrainConfig) -> float:
        if len(pretended.trained) in (2, 3, 4, 5):
            raise KeyboardInterrupt
        return 0.5

    pretended.score = stopped
    for attempt in range(4):
        with pytest.raises(
            TrainingError, match=r"stopped after 1 of 4 trials; go on with: vitrail tune --run \S+ --res"
        ):
            search(resume=attempt > 0)
    assert {one.state for one in search(resume=True).trials} == {"complete"}


def test_two_processes_share_the_trials(search: Search, pretended: Pretended, tmp_path: Path) -> None:
    """A trial whose folder is locked belongs to somebody who lives."""

    def joined(config: TrainConfig) -> float:
        if len(pretended.trained) == 1:
            lock = tmp_path / "tune/trials/001/.lock"
            text = lock.read_bytes()
            assert text
            report = search(resume=True, trials=3)  # another one works until nothing is left
            assert [one.state for one in report.trials] == ["running", "complete", "complete"]
            assert report.remarks[-1].startswith("1 trials still run on")
        return 0.5

    pretended.score = joined

    def in_use(lock: Path, subject: str, **wait: float) -> Any:
        if lock.parent.name == "001" and len(pretended.trained) in (1, 2, 3):
            raise LockedError(f"{subject} is in use")
        return locked(lock, subject, **wait)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitrail.tuning.study.locked", in_use)
        report = search(trials=3)
    assert [folder for _, folder in pretended.trained] == ["001", "002", "003"]
    assert {one.state for one in report.trials} == {"complete"}


def test_bad_trials_are_pruned_and_say_so(search: Search, pretended: Pretended, tmp_path: Path) -> None:
    pretended.rows = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    pretended.score = lambda _: 0.8 if len(pretended.trained) <= 5 else 0.1
    report = search(trials=6)
    last = report.trials[-1]
    assert last.state == "pruned"
    assert last.note == "Pruned after epoch 2 of 6: half of the other trials were better by then"
    assert last.num_epochs == 2
    assert Run(tmp_path / "tune/trials/006").read().trained.stopped == last.note
    assert search(trials=6, prune=False, overwrite=True).trials[-1].state == "complete"


def test_a_small_space_is_tried_once(search: Search, pretended: Pretended) -> None:
    report = search(vary=("learning_rate=1e-2,1e-3,1e-4", "lora=0,4"), trials=50)
    tried = [(one.values["learning_rate"], one.values["lora"]) for one in report.trials]
    assert len(tried) == len(set(tried)) == len(pretended.trained) == 6
    assert tried[0] == (1e-3, 0)


def test_the_nearest_values_stand_for_the_recipes_where_the_space_lacks_them(
    search: Search, pretended: Pretended
) -> None:
    report = search(vary=("learning_rate=0.01:0.1",), trials=1)
    assert pretended.trained[0][0].learning_rate == 0.01
    assert "the first trial has learning rate 0.01 instead of 0.001" in report.remarks[0]


def test_minutes_are_those_of_all_trials(search: Search, pretended: Pretended, config: TrainConfig) -> None:
    now = 0.0

    def slow(config: TrainConfig) -> float:
        nonlocal now
        now += 150
        return 0.5

    pretended.score = slow
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitrail.tuning.search.time.time", lambda: now)
        patch.setattr("vitrail.tuning.study.time.time", lambda: now)
        report = search(config=replace(config, minutes=10), trials=None, clock=lambda: now)
    assert [one.minutes for one, _ in pretended.trained] == [2, 2, 2, 2]
    assert report.remarks == (
        "The time of 10 min was over after 4 complete trials",
        "The best trial had 2 min, which ended it after 1 of 2 epochs; best.yaml has no limit",
    )
    pretended.trained.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitrail.tuning.search.time.time", lambda: now)
        patch.setattr("vitrail.tuning.study.time.time", lambda: now)
        search(config=replace(config, minutes=10), trials=None, resume=True, clock=lambda: now)
        assert not pretended.trained  # the earlier process has used the time
        now = 0.0
        report = search(config=replace(config, minutes=2), trials=None, overwrite=True, clock=lambda: now)
    assert "after one trial, so that nothing was compared; --minutes" in report.remarks[0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"trials": 0}, "0 trials are not allowed"),
        ({"config": {"devices": 2}}, "devices=2 trains each trial on one device"),
        ({"config": {"num_nodes": 2}}, "num_nodes=2 trains each trial on one device"),
        ({"config": {"keep_score": "accuracy"}}, "has the scores"),
        ({"vary": ("model=edgevit_test,edgevit_nope",)}, "edgevit_nope"),
        ({"vary": ("model_fields.depthz=1,2",)}, "depthz"),
        ({"vary": ("options.head=a,b",)}, "has no option 'head'"),
        ({"storage": "nonsense://x:secret@y"}, r"storage nonsense://x@y cannot be used"),
    ],
)
def test_what_cannot_be_tuned_is_refused_first(
    given: dict[str, Any], told: str, search: Search, pretended: Pretended, config: TrainConfig
) -> None:
    with pytest.raises(VitrailError, match=told) as caught:
        search(**given | ({"config": replace(config, **given["config"])} if "config" in given else {}))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not pretended.trained


def test_a_trial_that_fails_is_passed_over(search: Search, pretended: Pretended, tmp_path: Path) -> None:
    pretended.score = refusing(lambda config: (config.learning_rate or 0) > 1e-3)
    report = search(trials=6)
    states = {one.state for one in report.trials}
    assert states == {"complete", "failed"}
    failed = next(one for one in report.trials if one.state == "failed")
    assert failed.note == "the loss became nan"
    assert "Traceback" in (tmp_path / "tune/trials" / f"{failed.folder}.log").read_text()
    assert "the loss became nan" in write_tune_page(report).read_text()


def test_when_all_fail_the_first_reason_and_its_log_are_told(
    search: Search, pretended: Pretended, tmp_path: Path
) -> None:
    pretended.score = refusing(lambda _: True)
    with pytest.raises(TrainingError) as caught:
        search(trials=9)
    told = str(caught.value)
    assert told.startswith("all 3 trials failed, the first because: the loss became nan; its log is ")
    assert str(tmp_path / "tune/trials/001.log") in told
    assert len(pretended.trained) == 3


def test_a_full_disk_ends_the_tune_and_costs_no_trial(search: Search, pretended: Pretended) -> None:
    def full(config: TrainConfig) -> float:
        if len(pretended.trained) == 2:
            raise OSError(28, "No space left on device")
        return 0.5

    pretended.score = full
    with pytest.raises(TrainingError, match=r"the disk is full; .*; tuning was stopped after 1 of 4 trials"):
        search()
    assert {one.state for one in search(resume=True).trials} == {"complete"}


@pytest.mark.parametrize("name", ["a file", "a folder with files", "a run"])
def test_folders_of_others_are_refused(name: str, search: Search, pretended: Pretended, tmp_path: Path) -> None:
    place = tmp_path / "tüne x"
    if name == "a file":
        place.write_text("x")
    else:
        place.mkdir()
        (place / ("run.json" if name == "a run" else "notes.txt")).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    for given in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(RunError, match="choose another folder"):
            search(run=place, **given)
    assert sorted(tmp_path.rglob("*")) == before


def test_overwrite_deletes_its_own_files_alone(search: Search, pretended: Pretended, tmp_path: Path) -> None:
    search(trials=2)
    mine = tmp_path / "tune/trials/002/notes.txt"
    mine.write_text("mine")
    report = search(trials=1, overwrite=True)
    assert len(report.trials) == 1
    assert mine.exists()
    assert not (tmp_path / "tune/trials/002/run.json").exists()


def test_a_journal_that_a_crash_has_cut_short_is_read(search: Search, pretended: Pretended, tmp_path: Path) -> None:
    search(trials=2)
    journal = tmp_path / "tune/journal.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code":4,"worker')
    assert len(search(trials=3, resume=True).trials) == 3
    journal.write_text("notes\n")
    with pytest.raises(RunError, match=r"journal.log cannot be used: .*; give another --storage"):
        search(resume=True)


@pytest.mark.slow
def test_machines_share_a_database(search: Search, pretended: Pretended, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tunes.db'}"
    one, other = tmp_path / "a/tune", tmp_path / "b/tune"
    search(run=one, storage=url, trials=2)
    with pytest.raises(RunError, match="has a tune tune already; pass --resume to take part"):
        search(run=other, storage=url, trials=3)
    pretended.score = refusing(lambda _: False, 0.9)
    report = search(run=other, storage=url, trials=3, resume=True)
    assert [trial.folder for trial in report.trials] == ["", "", "003"]
    assert report.best_run is not None
    assert report.best_run.folder == other / "trials/003"
    there = search(run=one, storage=url, trials=3, resume=True)
    assert there.best_run is None
    assert "Its run is on " in there.verdict()[1]
    with pytest.raises(RunError, match=r"begun with --storage sqlite:///"):
        search(run=one, resume=True)


def test_python_and_a_moved_folder(config: TrainConfig, tmp_path: Path) -> None:
    """Real trainings, with the model of the best one opened."""
    place = tmp_path / "tune"
    found = vitrail.tune(config, vary=RATE, trials="2", run=place, progress=False)
    assert len(found) == 2
    assert "The score of the best is optimistic" in repr(found)
    assert found.best.read().status == "trained"
    assert not found.best.checkpoints.exists()
    assert found.config.learning_rate in {one.values["learning_rate"] for one in found}
    own = Run(place / "trials/001")
    assert own.read().training.learning_rate == 1e-3
    assert "epoch 2/2" in (place / "trials/001.log").read_text()
    moved = place.rename(tmp_path / "elsewhere")
    assert len(vitrail.tune(config, vary=RATE, trials=2, run=moved, resume=True, progress=False)) == 2
    with pytest.raises(ConfigError, match="and a whole TrainConfig"):
        vitrail.tune(config, epochs=3)


def test_shares_and_times() -> None:
    assert [grid_steps(n, 3) for n in range(4)] == [0, 3, 6, 10]
    assert grid_steps(5, 4) == 10
    assert busy_seconds([(0, 4), (2, 6), (10, float("inf"))], until=13) == 9
    assert busy_seconds([], until=1) == 0


def test_among_equals_the_simplest_is_best() -> None:
    score = Score(name="x", title="x")

    def trial(number: int, loss: float | None, kept: str = "best", state: Any = "complete") -> TuneTrial:
        return TuneTrial(number=number, state=state, values={}, score=0.5, loss=loss, kept=kept)

    trials = [trial(1, 0.4), trial(2, 0.2), trial(3, 0.2), trial(4, 0.1, state="pruned"), trial(5, float("nan"))]
    assert best_trial(trials, score) == trials[1]
    probe = trial(6, None, "probe")
    assert best_trial([*trials, probe], score) == probe
    assert best_trial([], score) is None
