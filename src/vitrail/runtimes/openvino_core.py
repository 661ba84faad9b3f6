"""OpenVINO's entry point, one for the whole process."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openvino import Core


@cache
def openvino_core() -> Core:
    """The one ``openvino.Core``, which lives as long as the process.

    Its CPU plugin (2026.4) gives the thread that loads it another stack for signal handlers, and frees that stack when
    the last user of the core goes. Python's handlers run on it: a second core, or one that was thrown away, turns the
    next Ctrl-C, or the end of any child process, into a segmentation fault.
    """
    from openvino import Core

    return Core()
