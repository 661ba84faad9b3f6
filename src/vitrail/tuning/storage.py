"""The folder of a tune, and the storage that its trials are kept in."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.core.checked import FileModel, checked
from vitrail.core.config import differing_fields
from vitrail.core.errors import ConfigError, RunError, VitrailError
from vitrail.core.faults import find_fault
from vitrail.core.files import check_regular, make_folder, read_json, remove, temporary_paths, write_json
from vitrail.core.lock import locked
from vitrail.core.paths import typed_path, user_path
from vitrail.runs.folder import FREE_FIELDS, clear
from vitrail.runs.run import Run

if TYPE_CHECKING:
    from optuna import Study

STUDY = "tune"
"""Name of the study in the folder's own journal; in other storages it is the name of the folder."""

KEY = "vitrail"
"""Name under which a study has what its trials have in common."""

PATIENCE = 60.0
"""Seconds to wait for another process that takes a trial or gives one back."""

JOURNAL_PATIENCE = 10
"""Seconds after which the journal's lock of a killed process is taken over."""

EMPTY = {".lock", "journal.log", "trials"}
"""Names in a folder whose tune has not begun yet."""

VERSION = 1


class PlaceFile(FileModel):
    """What must be known of ``tune.json`` to go on."""

    version: int = VERSION
    place: str
    storage: str = ""


@dataclass(frozen=True)
class TuneFolder:
    """The folder of a tune: a run for each trial, the results, and the journal.

    Attributes:
        folder: path of the folder, which need not exist yet.

    Raises:
        RunError: the path is no UTF-8 text.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Run(self.folder).folder)

    @property
    def results(self) -> Path:
        """``tune.json``: space, trials, best."""
        return self.folder / "tune.json"

    @property
    def page(self) -> Path:
        """The HTML page."""
        return self.folder / "tune.html"

    @property
    def best_config(self) -> Path:
        """The configuration of the best trial, for ``--config``."""
        return self.folder / "best.yaml"

    @property
    def journal(self) -> Path:
        """Optuna's journal of the trials, where no other storage is given."""
        return self.folder / "journal.log"

    @property
    def runs(self) -> Path:
        """Folder of the trials' runs, and of what each of them told."""
        return self.folder / "trials"

    def run(self, name: str) -> Run:
        """The run of a trial."""
        return Run(self.runs / name)

    def log(self, name: str) -> Path:
        """What the training of a trial told."""
        return self.runs / f"{name}.log"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other processes from taking trials, and from writing the results, while the block runs.

        Raises:
            LockedError: another process holds the lock for long.
            VitrailError: the folder is not writable.
        """
        with locked(self.folder / ".lock", f"tune {self.folder}", wait=PATIENCE):
            yield

    def prepare(self, *, resume: bool, overwrite: bool) -> None:
        """Make the folder, or check that it may be used.

        Raises:
            ConfigError: resume and overwrite contradict each other.
            RunError: the folder holds other files, or a tune that is neither to be resumed nor deleted.
            LockedError: the tune is to be deleted, and another process works on it.
        """
        if resume and overwrite:
            raise ConfigError("resume and overwrite contradict each other; pass only one of --resume and --overwrite")
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"tune folder {self.folder} is a file; choose another folder")
        if not self.results.exists():
            if self.folder.exists() and {path.name for path in self.folder.iterdir()} - EMPTY:
                raise RunError(f"folder {self.folder} is not empty and is not a tune; choose another folder")
        elif overwrite:
            self.read()
            with self.claimed():
                self._clear()
        elif not resume:
            raise RunError(
                f"{self.folder} has a tune already; pass --resume to go on with it, also beside other processes, "
                f"or --overwrite to start again"
            )
        make_folder(self.runs)

    def read(self) -> PlaceFile:
        """
        Raises:
            RunError: ``tune.json`` is not what Vitrail writes.
        """
        return checked(PlaceFile, read_json(self.results), str(self.results), "choose another folder")

    def check_storage(self, storage: str) -> None:
        """
        Raises:
            RunError: the tune was begun with another storage.
        """
        if self.results.exists() and (known := self.read().storage) != shown_storage(storage):
            begun = f"--storage {known}" if known else "its own journal, so leave out --storage"
            raise RunError(f"tune {self.folder} was begun with {begun}; pass the same, or choose another folder")

    def identify(self, storage: str) -> str:
        """The identity of this folder, which is made once."""
        if not self.results.exists():
            place = PlaceFile(place=uuid.uuid4().hex, storage=shown_storage(storage))
            write_json(self.results, place.model_dump())
        return self.read().place

    def _clear(self) -> None:
        """Delete the tune, its own files alone; ``tune.json`` last, which makes the folder one."""
        runs = [Run(path.parent) for path in sorted(self.runs.glob("[0-9]*/run.json"))]
        with ExitStack() as stack:
            for run in runs:
                stack.enter_context(run.writing())
            for run in runs:
                if run.is_ours:
                    clear(run)
        for path in (*self.runs.glob("[0-9]*.log"), self.page, self.best_config, self.journal):
            remove(path)
        for folder in (*self.runs.glob("[0-9]*"), self.runs):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        for path in (*temporary_paths(self.results), self.results):
            remove(path)


def shown_storage(storage: str) -> str:
    """The storage without its password; "" for the folder's own journal."""
    if "://" not in storage:
        return storage
    scheme, _, rest = storage.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}"


def open_study(folder: TuneFolder, storage: str, *, maximize: bool, anew: bool) -> Study:
    """The study of a tune, which is made if there is none.

    Args:
        folder: folder of the tune.
        storage: URL of a database, or path of a journal; "" for a journal in the folder.
        maximize: whether more is better.
        anew: delete the study that is there.

    Raises:
        RunError: the storage cannot be used.
    """
    import optuna

    name = folder.folder.resolve().name if storage else STUDY
    try:
        opened = _open_storage(folder, storage)
        if anew and name in optuna.study.get_all_study_names(opened):
            optuna.delete_study(study_name=name, storage=opened)
        return optuna.create_study(
            storage=opened, study_name=name, direction="maximize" if maximize else "minimize", load_if_exists=True
        )
    except VitrailError:
        raise
    except Exception as error:  # databases and their drivers raise all kinds
        if find_fault(error) is not None:
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        told = shown_storage(storage) or folder.journal
        raise RunError(f"storage {told} cannot be used: {reason}; give another --storage, or another folder") from error


def _open_storage(folder: TuneFolder, storage: str) -> Any:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    if "://" in storage:
        waits = {"connect_args": {"timeout": PATIENCE}} if storage.startswith("sqlite") else {}
        return RDBStorage(storage, engine_kwargs=waits)
    path = user_path(storage) if storage else folder.journal
    make_folder(path.parent)
    lock = JournalFileOpenLock(str(path), grace_period=JOURNAL_PATIENCE)
    if path.exists():
        check_regular(path)
        lock.acquire()
        try:
            _end_last_line(path)
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _end_last_line(path: Path) -> None:
    """Take away a last line that a crash has cut short, since Optuna could read nothing behind it."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        length = min(size, 2**20)
        file.seek(size - length)
        if length and not (end := file.read(length)).endswith(b"\n"):
            file.truncate(size - length + end.rfind(b"\n") + 1)


def check_study(study: Study, wanted: Mapping[str, Any], folder: TuneFolder) -> None:
    """Note what all trials have in common, or check that it is the same.

    Args:
        study: the study.
        wanted: space, training, fingerprint and score, as plain values.
        folder: folder of the tune, for messages.

    Raises:
        RunError: the study is of other settings, other images or another program.
    """
    known = study.user_attrs.get(KEY)
    if known is None:
        if study.get_trials(deepcopy=False):
            raise RunError(f"storage has a study {study.study_name} of another program; choose another --run")
        study.set_user_attr(KEY, dict(wanted))
        return
    if known["fingerprint"] != wanted["fingerprint"]:
        raise RunError(
            f"tune {folder.folder} was begun with other images; restore them to --resume, or choose another --run"
        )
    training = differing_fields(known["training"], wanted["training"])
    differences = [text for text in training if text.partition(" ")[0] not in (*FREE_FIELDS, "minutes")]
    differences += differing_fields({"space": known["space"]}, {"space": wanted["space"]})
    differences += differing_fields({"score": known["score"]}, {"score": wanted["score"]})
    if differences:
        raise RunError(
            f"tune {folder.folder} was begun with other settings: {'; '.join(differences)}; "
            f"pass the same ones to --resume, or choose another --run than {typed_path(folder.folder)}"
        )
