"""``vitrail tune``: the settings of a training that suit the data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitrail.cli.display import Display, Output, OutputOptions, display, number_text
from vitrail.cli.options import WholeNumber, configured
from vitrail.cli.train import TRAIN_GROUPS, TRAIN_NAMES
from vitrail.runs.recipe import expected
from vitrail.training import TrainConfig
from vitrail.tuning import TuneReport, tune as tune_settings, write_tune_page


@configured(TrainConfig(), names=TRAIN_NAMES, groups=TRAIN_GROUPS, expected=expected)
def tune(
    config: TrainConfig,
    *,
    run: Path = Path("runs/tune"),
    trials: WholeNumber | None = None,
    vary: Annotated[tuple[str, ...], Parameter(negative=(), negative_iterable=())] = (),
    space: Path | None = None,
    storage: str = "",
    prune: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    output: OutputOptions = Output(),
) -> None:
    """Search for the settings of a training that suit the images.

    Each trial is an ordinary training, in a run folder of its own. The first one has the recipe's own values. The
    others are drawn by a TPE sampler (Optuna), more and more where the earlier ones were good on the validation images.
    A trial that is worse than half of the others at the same share of its training ends early. What varies is the
    learning rate and a few others around the recipe's values, or what `--vary` and `--space` name; other options are
    the same in all trials.

    `--minutes` limits all trials together, and no trial takes more than a fifth of it. Several processes may work on
    one folder, each started with `--resume`; machines without a common folder share a database with `--storage`.

    **Examples**

    ```sh
    vitrail tune --data photos/ --run runs/tune --minutes 20
    vitrail tune --data photos/ --trials 30 --vary learning_rate=1e-5:1e-3:log --vary drop_path_rate=0,0.1,0.2
    vitrail tune --data photos/ --space space.yaml --resume
    vitrail tune --data photos/ --storage postgresql://me@server/tunes --run runs/photos --resume
    ```

    Args:
        run: Folder that the runs of all trials and the result are written to.
        trials: Number of trials of all processes together. Default: 12, or as many as the minutes allow.
        vary: Setting that varies, as NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,C with the name of an option of
            training, e.g. learning_rate=1e-5:1e-3:log; model_fields.NAME is a field of the model. It may be given
            several times. By default the learning rate and a few others vary around the recipe's values.
        space: YAML file with the settings that vary, a row for each, e.g. "weight_decay: {low: 0.01, high: 0.3, log:
            true}" or "lora: [0, 4, 8]". Default: none.
        storage: URL of a database that machines share, such as sqlite:///tune.db or postgresql://..., or path of a
            journal file; a journal in the folder is usual.
        prune: End trials early that are worse than half of the others.
        resume: Go on with a tune, also beside other processes that work on it.
        overwrite: Delete a tune that is in the folder.
    """
    with display(output) as shown:
        report = tune_settings(
            config,
            run=run,
            space=space,
            vary=vary,
            trials=trials,
            prune=prune,
            storage=storage,
            resume=resume,
            overwrite=overwrite,
            progress=shown.progress,
        )
        page = write_tune_page(report)
        show_tune(shown, report)
        shown.say(f"Course, settings and trials: {page}")
        for command in report.next_commands():
            shown.say(f"Next: {command}")
        shown.result(report.to_dict() | {"run": str(run), "page": str(page)})


def show_tune(shown: Display, report: TuneReport) -> None:
    """The trials, and how much to believe of the best one."""
    rows = [[row[0], *map(number_text, row[1:-1]), row[-1]] for row in report.rows()]
    shown.table(f"Tune: {len(rows)} trials; scores of the validation images", report.columns(), rows)
    for line in report.verdict():
        shown.say(line)
