"""Paths as users give them, and their names as text."""

from __future__ import annotations

import os
import re
from pathlib import Path

NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""Characters by which Python stands for the bytes of a file name that are no UTF-8; no text file can hold them."""


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user gives it, with ``~`` and ``~name`` as the home folders that they stand for."""
    return Path(os.path.expanduser(path))
