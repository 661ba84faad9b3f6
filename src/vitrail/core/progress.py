"""What people see of long work: lines, a bar in a terminal, and the time that is left."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Self, TypeVar

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


class Whole:
    """Several works one after the other, each of which then tells the time that is left of all.

    It is a context: a :class:`Work` with one of the titles belongs to it, in their order. A title that never comes is
    passed over, and what is done between two works counts for the first. Inside of another whole it does nothing.

    Args:
        stages: title of each work, and a guess of its time in any unit; finished ones correct the guesses.
        clock: seconds.
    """

    def __init__(self, stages: Iterable[tuple[str, float]], *, clock: Seconds = time.monotonic) -> None:
        self._stages = list(stages)
        self._clock = clock
        self._place = -1
        self._began = 0.0
        self._measured: list[tuple[float, float]] = []  # share and seconds
        self._token: Token[Whole | None] | None = None

    def __enter__(self) -> Self:
        if _WHOLE.get() is None:
            self._token = _WHOLE.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _WHOLE.reset(self._token)

    def begin(self, title: str) -> int | None:
        """The place of a work that begins now; None if it is none of the stages that are left."""
        places = range(self._place + 1, len(self._stages))
        if (place := next((one for one in places if self._stages[one][0] == title), None)) is None:
            return None
        now = self._clock()
        if self._place >= 0:
            self._measured.append((self._stages[self._place][1], now - self._began))
        self._place, self._began = place, now
        return place

    def left(self, place: int, done: float) -> float | None:
        """Seconds that are left of all; None where that is not known.

        Args:
            place: of the work, from :meth:`begin`.
            done: share of it that is done.
        """
        if place != self._place or done <= 0:
            return None
        spent = self._clock() - self._began
        measured = [*self._measured, (self._stages[place][1], spent / done)]
        unit = sum(seconds for _, seconds in measured) / max(sum(share for share, _ in measured), 1e-9)
        return spent / done - spent + unit * sum(share for _, share in self._stages[place + 1 :])


_WHOLE: ContextVar[Whole | None] = ContextVar("whole", default=None)


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
        self._whole = _WHOLE.get()
        self._place = self._whole.begin(title) if self._whole is not None else None
        self._bar.show(title, 0, total)

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Count steps that are done.

        Args:
            steps: how many.
            note: what is done next.
        """
        self._done = min(self._done + steps, self._total)
        now = self._clock()
        told = self._left(now)
        self._bar.show(self._title, self._done, self._total, f"{told} ({note})" if told and note else told or note)
        silence = FIRST_WORD_SECONDS if self._spoke == self._started else NEXT_WORD_SECONDS
        if not self._bar.visible and now - self._spoke >= silence and told and self._done < self._total:
            tell(LOG, f"{self._title}: {self._done:,.0f} of {self._total:,.0f}  {told}", progress=self._progress)
            self._spoke = now

    def _left(self, now: float) -> str:
        """The time that is left: of all, where this is a part of a whole."""
        if not self._done:
            return ""
        if self._whole is not None and self._place is not None:
            left = self._whole.left(self._place, self._done / self._total)
            return "" if left is None else f"left {time_text(left)} in all"
        return f"left {time_text((now - self._started) * (self._total - self._done) / self._done)}"

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
