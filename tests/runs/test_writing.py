"""One writer at a time, which deletes what dead ones left, and nothing of others."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vitrail.bench import append_results
from vitrail.core.errors import ConfigError, LockedError, RunError
from vitrail.core.files import atomic_folder, atomic_path
from vitrail.report import write_report
from vitrail.runs.bench import bench_runs
from vitrail.runs.evaluate import evaluate_run
from vitrail.runs.explain import explain_run
from vitrail.runs.export import export_run
from vitrail.runs.file_results import read_file_results
from vitrail.runs.quantize import CalibrationConfig, quantize_run
from vitrail.runs.robustness import measure_run_robustness
from vitrail.runs.run import DERIVED, Run
from vitrail.runs.train import train
from vitrail.training import TrainConfig

WRITERS: dict[str, Callable[[Run], Any]] = {
    "evaluate": evaluate_run,
    "robustness": measure_run_robustness,
    "quantize": lambda run: quantize_run(run, CalibrationConfig()),
    "export": export_run,
    "bench": lambda run: bench_runs([run]),
    "explain": lambda run: explain_run(run, []),
}


@contextmanager
def busy(run: Run) -> Iterator[None]:
    """Another thread writes to the run while the block runs."""
    begun, ended = threading.Event(), threading.Event()

    def write() -> None:
        with run.writing():
            begun.set()
            ended.wait()

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("verb", WRITERS)
def test_a_verb_that_writes_waits_for_no_other(full_run: Run, verb: str) -> None:
    before = {path: path.read_bytes() for path in full_run.folder.rglob("*") if path.is_file()}
    with busy(full_run), pytest.raises(LockedError, match=rf"run {full_run.folder} is in use by process \d+ on "):
        WRITERS[verb](full_run)
    assert before == {path: path.read_bytes() for path in full_run.folder.rglob("*") if path.is_file()}


def test_the_page_of_a_run_that_is_written_to_shows_what_is_there(full_run: Run) -> None:
    full_run.report_page.unlink(missing_ok=True)
    with busy(full_run):
        assert "<html" in write_report(full_run).read_text(encoding="utf-8")


def test_training_is_alone_from_the_first_check_on(config: TrainConfig, tmp_path: Path) -> None:
    run = Run(tmp_path / "new" / "run")
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with busy(run), pytest.raises(LockedError, match="is in use by process"):
            train(config, run=run, progress=False, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_reading_is_not_writing(full_run: Run) -> None:
    with busy(full_run):
        assert full_run.read().seed == 3
        assert len(read_file_results([full_run])) == 5


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK"])
def test_processes_that_train_together_are_one_writer(
    full_run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with busy(full_run):
        monkeypatch.setenv(name, "1")
        with full_run.writing():
            pass
        monkeypatch.setenv(name, "0")
        with pytest.raises(LockedError), full_run.writing():
            pass


def test_explanations_elsewhere_leave_the_run_alone(full_run: Run, tmp_path: Path) -> None:
    with busy(full_run), pytest.raises(ConfigError, match="outputs for 3 classes"):
        explain_run(full_run, [], folder=tmp_path / "out")


def leave_behind(*paths: Path, folders: tuple[Path, ...] = ()) -> list[Path]:
    """What a process leaves that is killed while it writes all of these."""
    child = os.fork()
    if child == 0:
        writers = [*map(atomic_path, paths), *map(atomic_folder, folders)]
        for writer in writers:
            writer.__enter__().write_text("half")
        os._exit(0)
    os.waitpid(child, 0)
    found = [path for place in {path.parent for path in (*paths, *folders)} for path in place.glob(".*-*")]
    assert len(found) == len(paths) + len(folders)
    for path in found:
        os.utime(path, (1e9, 1e9))
    return found


def test_the_next_verb_deletes_what_a_killed_one_left(full_run: Run) -> None:
    full_run.update(versions={"vitrail": "0.1.0"})
    exported = (full_run.onnx("float"), full_run.onnx("int8"), full_run.exported("coreml"))
    found = leave_behind(*(full_run.folder / name for name in DERIVED), folders=exported)
    others = [full_run.folder / ".report-of-mine.html", full_run.figures / ".holidays-a1b2c3d4.png"]
    others += [full_run.folder / ".report-a1b2c3d4.pdf", full_run.folder / "report-a1b2c3d4.html"]
    for path in others:
        path.write_text("mine")
    write_report(full_run)
    assert not [path for path in found if path.exists()]
    assert all(path.exists() for path in others)


def test_what_is_younger_than_the_lock_is_being_written(full_run: Run) -> None:
    full_run.update(versions={"vitrail": "0.1.0"})
    with full_run.writing(), atomic_path(full_run.bench_rows) as temporary:
        with full_run.writing():
            append_results(full_run.bench_rows, [])
        assert temporary.exists()


FOREIGN = {
    "another program's": '{"model": {"name": "resnet18", "fields": {}}, "task": "classification", "lr": 0.1}',
    "an object": '{"loss": [1, 2, 3]}',
    "a list": "[]",
    "no JSON": "run: 3",
    "empty": "",
    "a later version's that cannot be read": '{"version": 9, "model": 3, "versions": {"vitrail": "9.0"}}',
}


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}], ids=str)
@pytest.mark.parametrize("contents", FOREIGN)
def test_a_folder_with_a_run_file_of_others_is_left_alone(
    config: TrainConfig, tmp_path: Path, contents: str, options: dict[str, Any]
) -> None:
    folder = tmp_path / "experiment"
    names = ("metrics.csv", "checkpoints/last.ckpt", "figures/confusion.png", "model.onnx", ".report-a1b2c3d4.html")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    (folder / "run.json").write_text(FOREIGN[contents])
    with pytest.raises(RunError, match=r"run\.json.*choose another folder"):
        train(config, run=folder, progress=False, **options)
    assert (folder / "run.json").read_text() == FOREIGN[contents]
    assert [path.read_text() for path in folder.rglob("*") if path.is_file()].count("precious") == len(names)
    assert not (folder / ".lock").exists()


def test_linked_folders_are_not_followed(full_run: Run, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "confusion.png").write_text("precious")
    for path in full_run.figures.iterdir():
        path.unlink()
    full_run.figures.rmdir()
    full_run.figures.symlink_to(tmp_path / "pictures")
    assert not [path for path in full_run.artefacts() if path.parent == full_run.figures]


def test_a_run_of_others_inside_is_not_ours(full_run: Run) -> None:
    inner = full_run.quantized / "w4"
    inner.mkdir(parents=True)
    (inner / "model.onnx").write_text("")
    for values, ours in (({"model": 3}, False), (json.loads(full_run.description.read_text()), False)):
        (inner / "run.json").write_text(json.dumps(values))
        assert (inner / "model.onnx" in full_run.artefacts()) is ours
    (inner / "run.json").write_text(json.dumps(values | {"versions": {"vitrail": "0.1.0"}}))
    assert inner / "model.onnx" in full_run.artefacts()
