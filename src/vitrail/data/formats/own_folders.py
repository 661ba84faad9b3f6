"""Folders that Vitrail wrote: runs, comparisons and Pareto fronts. Their pictures are never data."""

from __future__ import annotations

import os
from pathlib import Path

from vitrail.core.files import open_regular

MARKS = {
    "run.json": (b'"model"', b'"fields"', b'"task"'),
    "comparison.json": (b'"question"', b'"baseline"', b'"training"', b'"score"'),
    "check.json": (b'"data"', b'"task"', b'"understood"'),
    "pareto.csv": (b"device,run,model,file,runtime",),
}
"""File that Vitrail writes -> words that it begins with, in any order."""

HEAD_BYTES = 65536

LOCK = ".lock"
"""File of a run whose first file is not yet written."""


def is_own_folder(folder: Path) -> bool:
    """Whether Vitrail wrote the folder; a foreign ``run.json`` is no mark."""
    return any((folder / name).is_file() and _begins_with(folder / name, words) for name, words in MARKS.items())


def _begins_with(file: Path, words: tuple[bytes, ...]) -> bool:
    try:
        with open_regular(file) as opened:
            head = opened.read(HEAD_BYTES)
    except OSError:
        return False
    return all(word in head for word in words)


def holds_own_folders(folder: Path) -> bool:
    """Whether the folder is one that Vitrail wrote, or has one at any depth, or one that it begins to write."""
    return any(LOCK in files or is_own_folder(Path(where)) for where, _, files in os.walk(folder))


def describe_own_folders(root: Path) -> str:
    """A sentence on the folders of ``root`` that are left out of the data; empty without any."""
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and holds_own_folders(entry))
    return f"Left out of the data, since Vitrail wrote it: what it has in {', '.join(found)}." if found else ""
