"""The own code that a run was trained with: what it remembers, and what is said when it is missing or has changed.

A run is data. The code that it names is never imported for it, nor the copy that it holds: the user decides, since a
run folder may be anybody's.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from vitrail.core.errors import RunError
from vitrail.core.files import atomic_path, read_bytes
from vitrail.core.import_code import MAX_BYTES, imported_hash, is_own, load_installed
from vitrail.core.paths import typed_path
from vitrail.core.registered import find_registration, is_reference, registrations

LOGGER = logging.getLogger("vitrail")

_TOLD: set[str] = set()
"""Lines that were logged; one is enough in a process."""

REFERENCE = "object"
"""Kind of what is no registered object, but a class or function ``module:Name``."""


class CodeEntry(BaseModel):
    """One object of own code that a run needs.

    Attributes:
        kind: "family", "token mixer", "task", "head of segmentation", or "object" for ``module:Name``.
        name: its name.
        module: name of the module that registered it.
        file: path of the file, where the run was trained; "" for a notebook.
        sha256: first 16 digits of the hash of the file; "" for a notebook.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str
    name: str
    module: str = ""
    file: str = ""
    sha256: str = ""

    @property
    def copy_name(self) -> str:
        """Name of the file's copy in the run; "" without a file."""
        name = Path(self.file).name if self.module == "__main__" else f"{self.module}.py"
        return name if self.file.endswith(".py") and name == Path(name).name and "\0" not in name else ""

    @property
    def is_here(self) -> bool:
        """Whether it can be used in this process."""
        if self.kind != REFERENCE:
            return find_registration(self.kind, self.name) is not None
        return is_own(self.name.partition(":")[0])

    @property
    def present_hash(self) -> str:
        """Hash of the file that it comes from in this process."""
        known = find_registration(self.kind, self.name)
        return imported_hash(self.name.partition(":")[0]) if known is None else known.hash


def used_code(model: str, fields: Mapping[str, Any], task: str, options: Mapping[str, Any]) -> list[CodeEntry]:
    """What own code a run uses.

    Args:
        model: name of the model.
        fields: fields of its configuration.
        task: name of the task.
        options: options of the task.
    """
    texts = list(_texts(fields.values()))
    wanted = {
        "family": [model],
        "token mixer": texts,
        "task": [task],
        f"head of {task}": [str(options.get("head", ""))],
    }
    entries = [
        CodeEntry(kind=one.kind, name=one.name, module=one.module, file=one.file, sha256=one.hash)
        for one in registrations()
        if set(one.answers_to) & {*wanted.get(one.kind, ())}
    ]
    for text in filter(is_reference, texts):
        module = text.partition(":")[0]
        if is_own(module):
            file = str(getattr(sys.modules.get(module), "__file__", None) or "")
            found = imported_hash(module)
            entries.append(CodeEntry(kind=REFERENCE, name=text, module=module, file=file, sha256=found))
    return entries


def _texts(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _texts(value.values())
        elif isinstance(value, list | tuple):
            yield from _texts(value)


def require_code(entries: Sequence[CodeEntry], folder: Path | None = None) -> None:
    """Check that the own code of a run is here; a line is logged where its file has changed since.

    Args:
        entries: what the run remembers.
        folder: the run folder, for messages.

    Raises:
        RunError: something is missing; the message says what to import.
    """
    if not all(entry.is_here for entry in entries):
        load_installed()
    for entry in entries:
        if not entry.is_here:
            raise RunError(missing_text(entry, folder))
    changed = {entry.file: entry for entry in entries if entry.sha256 and entry.present_hash not in ("", entry.sha256)}
    for file, entry in changed.items():
        line = _printable(
            f"{_run(folder)} was trained with another {Path(file).name} (sha256 {entry.sha256}, now "
            f"{entry.present_hash}): its answers may differ"
        )
        if line not in _TOLD:
            _TOLD.add(line)
            LOGGER.warning(line)


def missing_text(entry: CodeEntry, folder: Path | None = None) -> str:
    """The line on own code that is missing, with the remedy."""
    source = f"of {Path(entry.file).name}" if entry.file else "of a notebook"
    text = _printable(f"{_run(folder)} needs the {entry.kind} '{entry.name}' {source}, which is not imported")
    if not entry.file:
        return f"{text}; register it again, or put it into a file and pass --import FILE"
    copy = folder / "code" / entry.copy_name if folder is not None and entry.copy_name else None
    if copy is not None and copy.is_file():
        end = f"; the run has a copy to read before you import it: {_printable(typed_path(copy))}"
    else:
        end = ""
    return f"{text}; pass its path: --import {_printable(Path(entry.file).name)} (in Python: vitrail.import_code){end}"


def _printable(text: str) -> str:
    """Run folders may be anybody's, and a terminal obeys what it prints."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _run(folder: Path | None) -> str:
    return "the run" if folder is None else f"run {folder}"


def keep_copies(entries: Sequence[CodeEntry], folder: Path) -> None:
    """Write a copy of every file of own code into a folder of the run, for people to read."""
    for entry in {entry.copy_name: entry for entry in entries if entry.copy_name}.values():
        try:
            contents = read_bytes(entry.file, MAX_BYTES)
        except OSError as error:
            LOGGER.warning("no copy of %s is kept: %s", entry.file, error.strerror or error)
            continue
        with atomic_path(folder / entry.copy_name) as temporary:
            temporary.write_bytes(contents)
