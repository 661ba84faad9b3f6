"""``vitrail report``: the page of a run."""

from __future__ import annotations

from pathlib import Path

from vitrail.cli.display import Display, Output, OutputOptions, display
from vitrail.report import write_report
from vitrail.report.first_screen import first_screen
from vitrail.runs.run import Run


def report(run: Path, /, *, output: OutputOptions = Output()) -> None:
    """Write a run's HTML report.

    One self-contained page, `report.html` in the run folder, from whatever the run has: a summary in sentences, which
    is printed too, data, training curves, accuracy beside that of a trivial answer, the worst mistakes, float versus
    8-bit, size and latency of every file, environment, and the command that reproduces it. Pictures are inside the
    page; it loads nothing from the network.

    **Examples**

    ```sh
    vitrail report runs/photos
    vitrail report runs/photos --json
    ```

    Args:
        run: Run folder.
    """
    with display(output) as shown:
        opened = Run.open(run, needs=("description",))
        path = write_report(opened)
        lines = show_first_screen(shown, opened)
        shown.say(f"Report: {path}")
        shown.result({"report": str(path), "summary": lines})


def show_first_screen(shown: Display, run: Run) -> list[str]:
    """The sentences at the top of the report; they are returned too."""
    lines = list(first_screen(run).lines)
    for line in lines:
        shown.say(line)
    return lines
