"""What people see of long work: lines, a bar in a terminal, and the time that is left."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID  # Rich takes time to import, and most of Vitrail's work shows nothing

LOG = logging.getLogger(__name__)

T = TypeVar("T")

Seconds = Callable[[], float]
"""A clock: seconds since any moment. Tests replace it."""

REFRESH_SECONDS = 0.25
"""Least time between two drawings of a bar."""

FIRST_WORD_SECONDS = 20
"""Silence after which a work tells in a pipe or a log how far it is."""

NEXT_WORD_SECONDS = 60
"""Silence after which it does so again."""


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


def is_watched() -> bool:
    """Whether a person watches: in terminals and notebooks."""
    from rich.console import Console

    return sys.stderr.isatty() or Console().is_jupyter


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


class Work:
    """How far a work of known length is: a bar in a terminal; in pipes, logs and notebooks a line now and then.

    Args:
        title: what is done.
        total: number of steps.
        progress: whether a person watches.
        clock: seconds.
    """

    def __init__(self, title: str, total: float, *, progress: bool, clock: Seconds = time.monotonic) -> None:
        self._title = title
        self._total = total
        self._progress = progress
        self._clock = clock
        self._bar = Bar(wanted=progress, clock=clock)
        self._done = 0.0
        self._started = self._spoke = clock()
        self._bar.show(title, 0, total)

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Count steps that are done.

        Args:
            steps: how many.
            note: what is done next.
        """
        self._done = min(self._done + steps, self._total)
        now = self._clock()
        left = (now - self._started) * (self._total - self._done) / self._done if self._done else None
        told = "" if left is None else f"left {time_text(left)}"
        self._bar.show(self._title, self._done, self._total, f"{told} ({note})" if told and note else told or note)
        silence = FIRST_WORD_SECONDS if self._spoke == self._started else NEXT_WORD_SECONDS
        if not self._bar.visible and now - self._spoke >= silence and told and self._done < self._total:
            tell(LOG, f"{self._title}: {self._done:,.0f} of {self._total:,.0f}  {told}", progress=self._progress)
            self._spoke = now

    def end(self) -> None:
        """Remove the bar."""
        self._bar.hide()


def track(items: Iterable[T], title: str, *, progress: bool, total: int | None = None) -> Iterator[T]:
    """Items of a work, one after the other, as :class:`Work` shows it.

    Args:
        items: what is worked on.
        title: what is done.
        progress: whether a person watches.
        total: number of items. Default: their length.
    """
    work = Work(title, len(items) if total is None else total, progress=progress)  # type: ignore[arg-type]  # sized
    try:
        for item in items:
            yield item
            work.advance()
    finally:
        work.end()
