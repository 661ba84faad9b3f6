"""``vitrail demo``: the whole way on the embedded sample."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

from vitrail.cli.display import Output, OutputOptions, display
from vitrail.cli.options import configured
from vitrail.cli.whole_way import WHOLE_WAY_GROUPS, WHOLE_WAY_NAMES, run_whole_way
from vitrail.runs.whole_way import WholeWayConfig
from vitrail.training import demo_config


@configured(WholeWayConfig(train=demo_config()), names=WHOLE_WAY_NAMES, groups=WHOLE_WAY_GROUPS)
def demo(
    config: WholeWayConfig,
    *,
    run: Path = Path("runs/demo"),
    resume: bool = False,
    open: bool = True,
    output: OutputOptions = Output(),
) -> None:
    """See the whole way on the embedded sample, in minutes on a laptop.

    A small EdgeViT is trained on 900 photographs of hand signs that come with Vitrail, quantised and exported. Every
    file is evaluated on 300 other photographs and measured in every runtime, and a report is written. Nothing is
    downloaded. The run of an earlier demo is replaced, unless `--resume` continues it.

    **Examples**

    ```sh
    vitrail demo
    vitrail demo --run /tmp/demo --no-open
    vitrail demo --epochs 5 --json
    ```

    Args:
        run: Folder that the run is written to.
        resume: Continue where an interrupted demo stopped.
        open: Show the report in a browser, if there is a screen and a terminal.
    """
    with display(output) as shown:
        finished = run_whole_way(shown, config, run, resume=resume, overwrite=not resume)
        if open and shown.interactive and has_screen():
            webbrowser.open(finished.report_page.resolve().as_uri())


def has_screen() -> bool:
    """Whether a browser window could be seen: always on macOS and Windows, with a display server elsewhere."""
    if sys.platform in ("darwin", "win32"):
        return "SSH_CONNECTION" not in os.environ
    return "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
