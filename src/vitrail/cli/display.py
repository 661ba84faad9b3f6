"""What a verb prints: tables and timed steps for people, or one JSON document for scripts."""

from __future__ import annotations

import contextlib
import csv
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Annotated

from cyclopts import Group, Parameter
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from vitrail.core.files import json_text
from vitrail.core.progress import time_text

WIDEST = 1000
"""Columns in which every table has its natural width."""

PIPE_WIDTH = 160
"""Columns where no terminal tells its width: wide enough that no row of ours breaks."""

TALKERS = ("lightning.pytorch", "torch", "torch.onnx", "onnxscript")
"""Loggers that tell developers what users need not know."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """Options that every verb has.

    Attributes:
        json: Print one JSON document on standard output; all other output goes to standard error.
        quiet: Print nothing but errors.
        debug: Show the traceback of an error.
        imports: Python file, or name of a module, with models, token mixers, heads or tasks of your own. It may be
            given several times; a run only names its files, and never imports them itself.
    """

    json: Annotated[bool, Parameter(negative=())] = False
    quiet: Annotated[bool, Parameter(alias="-q", negative=())] = False
    debug: Annotated[bool, Parameter(negative=())] = False
    imports: Annotated[tuple[str, ...], Parameter(name="--import", negative=(), negative_iterable=())] = ()


OutputOptions = Annotated[Output, Parameter(name="*", group=Group("Output and own code", sort_key=90))]


class Display:
    """Prints as :class:`Output` says; a verb makes one and prints through nothing else."""

    def __init__(self, output: Output, stdout: IO[str]) -> None:
        self.output = output
        self._stdout = stdout
        width = None if stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
        self._console = Console(file=stdout, quiet=output.quiet or output.json, width=width, highlight=False)

    @property
    def progress(self) -> bool:
        """Whether bars are wanted: only a person at a terminal gets them."""
        return not (self.output.quiet or self.output.json) and self._stdout.isatty()

    @property
    def interactive(self) -> bool:
        """Whether a person watches, who may be shown a browser window."""
        return self.progress

    def say(self, text: str) -> None:
        """A line for people."""
        self._console.print(text, markup=False, soft_wrap=True)

    def tell(self, text: str) -> None:
        """A line that people need while a verb runs, and that no quietness keeps from them."""
        print(text, file=sys.stderr, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table for people; columns of numbers are aligned to the right, None is a dash.

        Where the terminal is too narrow for the frames they are left out, and where it is too narrow for the numbers
        each row becomes a paragraph.
        """
        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
        least = 0
        for index, column in enumerate(columns):
            cells = ["-" if row[index] is None else str(row[index]) for row in rows]
            numeric = all(isinstance(row[index], int | float | _Number | None) for row in rows)
            whole = numeric or index == 0
            table.add_column(column, justify="right" if numeric else "left", no_wrap=whole, overflow="fold")
            words = [word for text in (column, *([] if whole else cells)) for word in text.split()]
            least += 1 + max(map(cell_len, [*words, *(cells if whole else [])]), default=0)
        for row in rows:
            table.add_row(*("-" if cell is None else str(cell) for cell in row))
        wide = self._console.options.update(width=WIDEST)
        if self._console.measure(table, options=wide).maximum > self._console.width:
            table.box, table.padding, table.pad_edge = None, (0, 1, 0, 0), False  # frames take the room of a column
        if least <= self._console.width:
            self._console.print(table)
            return
        self._console.print(title, style="bold", markup=False)
        for row in rows:  # a number that lost its last digits would be another number
            named = [f"{name} {cell}" for name, cell in zip(columns[1:], row[1:], strict=True) if cell is not None]
            self._console.print(f"{row[0]}: {'; '.join(named) or '-'}", markup=False)

    def csv(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """The same as a table, for spreadsheets; printed even where quiet is wanted, since it was asked for."""
        csv.writer(self._stdout, lineterminator="\n").writerows([columns, *rows])

    def result(self, value: object) -> None:
        """The document for scripts."""
        if self.output.json:
            print(json_text(value, indent=2), file=self._stdout)

    @contextlib.contextmanager
    def stage(self, heading: str, left: float | None = None) -> Iterator[None]:
        """A timed step.

        Args:
            heading: its name.
            left: seconds that it and all behind it will take.
        """
        told = "" if left is None else f"[not bold], left about {time_text(left)} in all"
        self._console.rule(f"[bold]{heading}{told}", align="left")
        start = time.perf_counter()
        yield
        self.say(f"{heading}: {time.perf_counter() - start:.1f} s")


class _Number(str):
    """Text that shows a number with its unit, hence aligned as one."""


def number(value: float | None, digits: int = 2, unit: str = "") -> _Number | None:
    """``value`` with so many digits, and a unit."""
    return None if value is None else _Number(f"{value:,.{digits}f}{unit}")


def number_text(text: str) -> _Number | None:
    """Text that a value was made into elsewhere, aligned as a number; None where it is empty."""
    return _Number(text) if text else None


def percent(fraction: float | None, digits: int = 1) -> _Number | None:
    """0.876 as ``87.6 %``."""
    return number(None if fraction is None else 100 * fraction, digits, " %")


def figure(value: float | None, *, percentage: bool) -> _Number | None:
    """A score as a percentage, or with four digits."""
    return percent(value) if percentage else number(value, 4)


def megabytes(size_bytes: int | None) -> _Number | None:
    """A size in units of 10^6 bytes."""
    return number(None if size_bytes is None else size_bytes / 1e6, 2, " MB")


@contextlib.contextmanager
def display(output: Output) -> Iterator[Display]:
    """A display for one verb. Whatever libraries print meanwhile goes to standard error where JSON is wanted, and
    nowhere at all where quiet is."""
    shown = Display(output, sys.stdout)
    with contextlib.ExitStack() as stack:
        if output.json:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        if output.quiet:
            stack.enter_context(contextlib.redirect_stdout(_Nowhere()))
        if not output.debug:
            stack.enter_context(_calm())
        if not output.quiet:
            stack.enter_context(_told())
        yield shown


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """Libraries' advice to developers is not for users: only warnings of ours and errors are shown."""
    levels = {name: logging.getLogger(name).level for name in TALKERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What Vitrail logs for people goes to standard error."""
    logger, handler = logging.getLogger("vitrail"), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class _Nowhere:
    """A standard output that is thrown away."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False
