"""``vitrail report``: the page of a run."""

from __future__ import annotations

from pathlib import Path

from vitrail.cli.display import Output, OutputOptions, display
from vitrail.report import write_report
from vitrail.runs.run import Run


def report(run: Path, /, *, output: OutputOptions = Output()) -> None:
    """Write a run's HTML report.

    One self-contained page, `report.html` in the run folder, from whatever the run has: data, training curves,
    accuracy, example predictions, float versus 8-bit, size and latency of every file, environment, and the command
    that reproduces it. Pictures are inside the page; it loads nothing from the network.

    **Examples**

    ```sh
    vitrail report runs/photos
    vitrail report runs/photos --json
    ```

    Args:
        run: Run folder.
    """
    with display(output) as shown:
        path = write_report(Run.open(run, needs=("description",)))
        shown.say(f"Report: {path}")
        shown.result({"report": str(path)})
