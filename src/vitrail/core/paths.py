"""Paths as users give them, and their names as text."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from vitrail.core.errors import ConfigError

NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""Characters by which Python stands for the bytes of a file name that are no UTF-8; no text file can hold them."""


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user gives it, with ``~`` and ``~name`` as the home folders that they stand for.

    Raises:
        ConfigError: it is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"{path!r} is no path; give a text such as 'runs/photos', or a pathlib.Path")
    return Path(os.path.expanduser(path))


def typed_path(path: str | os.PathLike[str]) -> str:
    """A path as a word of a command line, quoted where it has to be."""
    return shlex.quote(os.fspath(path))


def cache_folder(kind: str) -> Path:
    """The folder for what can be computed again, ``~/.cache/vitrail/KIND``; ``XDG_CACHE_HOME`` moves it.

    Args:
        kind: what it holds.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitrail" / kind
