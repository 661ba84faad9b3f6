"""What a trial's training tells goes into a file; people see a line of it now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitrail.core.errors import VitrailError
from vitrail.core.files import make_folder
from vitrail.core.progress import Seconds

LOGGER = "vitrail"
"""Logger that all of ours are below."""

NEXT_WORD_SECONDS = 60.0
"""Silence after which a line of a training is shown."""


class _Through(logging.Handler):
    """Passes on warnings, and one line after each silence."""

    def __init__(self, others: list[logging.Handler], title: str, clock: Seconds) -> None:
        super().__init__()
        self._others, self._title, self._clock = others, title, clock
        self._spoke = clock()

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        if record.levelno < logging.WARNING and now - self._spoke < NEXT_WORD_SECONDS:
            return
        self._spoke = now
        shown = logging.LogRecord(
            record.name,
            record.levelno,
            record.pathname,
            record.lineno,
            f"{self._title}: %s",
            (record.getMessage(),),
            None,
        )
        for other in self._others:
            other.handle(shown)


@contextmanager
def trial_log(path: Path, title: str, clock: Seconds = time.monotonic) -> Iterator[logging.Handler]:
    """Keep what is logged while the block runs in a file, behind what is there.

    Args:
        path: the file.
        title: words before what people see of it.
        clock: seconds.

    Raises:
        VitrailError: the file cannot be written.
    """
    make_folder(path.parent)
    try:
        file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise VitrailError(f"cannot write {path}: {error.strerror}; free space or choose another folder") from error
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger(LOGGER)
    others, level, propagate = [*logger.handlers], logger.level, logger.propagate
    for handler in others:
        logger.removeHandler(handler)
    own = [file, _Through(others, title, clock)]
    for handler in own:
        logger.addHandler(handler)
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    logger.propagate = False
    try:
        yield file
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
        for handler in own:
            logger.removeHandler(handler)
        for handler in others:
            logger.addHandler(handler)
        file.close()
