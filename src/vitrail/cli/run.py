"""``vitrail run``: the whole way on the user's own images."""

from __future__ import annotations

from pathlib import Path

from vitrail.cli.display import Output, OutputOptions, display
from vitrail.cli.options import configured
from vitrail.cli.whole_way import WHOLE_WAY_GROUPS, WHOLE_WAY_NAMES, run_whole_way
from vitrail.runs.whole_way import WholeWayConfig


@configured(WholeWayConfig(), names=WHOLE_WAY_NAMES, groups=WHOLE_WAY_GROUPS)
def run(
    config: WholeWayConfig,
    *,
    run: Path = Path("runs/run"),
    resume: bool = False,
    overwrite: bool = False,
    output: OutputOptions = Output(),
) -> None:
    """Go the whole way on your own folder of images.

    Train, quantise, export, evaluate, measure and report, one after the other; the folder has one folder of images for
    each class. After an interruption, the same command with `--resume` continues and skips the finished stages.

    **Examples**

    ```sh
    vitrail run --data photos/ --model edgevit_xxs
    vitrail run --data photos/ --run runs/photos --epochs 50 --resume
    vitrail run --data photos/ --print-config > photos.yaml
    vitrail run --config photos.yaml --json > figures.json
    ```

    Args:
        run: Folder that the run is written to.
        resume: Continue where an interrupted run stopped.
        overwrite: Delete a run that is in the folder.
    """
    with display(output) as shown:
        run_whole_way(shown, config, run, resume=resume, overwrite=overwrite)
