"""What people see of long work: lines, a bar in a terminal, and the time that is left."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID  # Rich takes time to import, and most of Vitrail's work shows nothing

Seconds = Callable[[], float]
"""A clock: seconds since any moment. Tests replace it."""

REFRESH_SECONDS = 0.25
"""Least time between two drawings of a bar."""


def tell(log: logging.Logger, line: str, *, progress: bool) -> None:
    """Log a line, and print it where nobody listens to the log but a person watches.

    Args:
        log: logger of the module that has something to tell.
        line: one line for people.
        progress: whether a person watches.
    """
    if progress and not log.isEnabledFor(logging.INFO):
        from rich.console import Console

        Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
    log.info("%s", line)


def time_text(seconds: float) -> str:
    """A duration for people, with two digits or so: ``45 s``, ``12 min``, ``3 h 20 min``, ``2 days 4 h``."""
    if (whole := round(seconds)) < 90:
        return f"{max(whole, 0)} s"
    if (minutes := round(seconds / 60)) < 90:
        return f"{minutes} min"
    if (hours := round(seconds / 3600)) < 48:
        return f"{minutes // 60} h {minutes % 60} min" if hours < 10 else f"{hours} h"
    return f"{hours // 24} days {hours % 24} h"


class Bar:
    """A bar on standard error of a terminal, which disappears when it ends; nothing in files, pipes and notebooks.

    It draws no random numbers and starts no thread.

    Args:
        wanted: False shows nothing anywhere.
        clock: seconds, which limit how often it is drawn.
    """

    def __init__(self, *, wanted: bool, clock: Seconds = time.monotonic) -> None:
        self._wanted = wanted and sys.stderr is not None and sys.stderr.isatty()
        self._clock = clock
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._drawn = 0.0

    @property
    def visible(self) -> bool:
        """Whether something can be seen."""
        return self._wanted

    def show(self, title: str, done: float, total: float, note: str = "") -> None:
        """Draw the bar, or draw it anew where the last drawing is some time ago.

        Args:
            title: words before the bar.
            done, total: numbers of steps.
            note: words behind it.
        """
        if not self._wanted:
            return
        now = self._clock()
        if self._progress is None:
            self._start(title, done, total, note)
        elif now - self._drawn >= REFRESH_SECONDS or done >= total:
            assert self._task is not None
            self._progress.update(self._task, description=title, completed=done, total=total, note=note, refresh=True)
        else:
            return
        self._drawn = now

    def _start(self, title: str, done: float, total: float, note: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
        self._task = self._progress.add_task(title, completed=int(done), total=total, note=note)
        self._progress.start()

    def hide(self) -> None:
        """Remove the bar; :meth:`show` brings it back."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None
