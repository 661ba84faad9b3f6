"""``vitrail evaluate``: how often a model is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitrail.cli.display import Display, Output, OutputOptions, display, figure, number, percent
from vitrail.cli.options import configured
from vitrail.cli.robustness import evaluate_robustness
from vitrail.core.config import typed
from vitrail.core.errors import ConfigError
from vitrail.evaluation import RobustnessConfig
from vitrail.runs.elsewhere import EvaluateConfig, evaluate_elsewhere
from vitrail.runs.evaluate import WEIGHTS, evaluate_run
from vitrail.runs.run import Run
from vitrail.runs.telling import majority, telling_scores

HEADINGS = {"f1": "F1", "iou": "IoU", "ap": "AP"}

FEW_CLASSES = 20
"""Up to so many classes the table has all of them, else only the ones with the lowest F1."""


@configured(
    EvaluateConfig(),
    groups={
        "Options": ("data", "part", "batch_size", "max_bad_fraction"),
        "Robustness": ("robustness", "groups", "num_images", "robustness_seed"),
        "Weights without a run": ("model", "weights"),
        "Preprocessing": ("image_size", "mean", "std", "crop_fraction", "interpolation", "pixel_range"),
    },
)
def evaluate(config: EvaluateConfig, /, *runs: Path, output: OutputOptions = Output()) -> None:
    """Measure the accuracy of a run or of a weights file.

    The weights and every exported file of a run are evaluated on the held-out images: the test part, or the
    validation part if there is none. The result is kept in the run as `evaluation.json` and two figures. With `--data`
    all images of another folder are taken, or those of one `--part`, and the run does not change. To evaluate a weights
    file without a run, give `--model`, `--weights` and `--data`; Vitrail's and the authors' formats both work.
    `--robustness` takes several runs; runs that differ only in their seed become one row, and one curve with a band.

    **Examples**

    ```sh
    vitrail evaluate runs/photos
    vitrail evaluate runs/photos --data other_photos/
    vitrail evaluate runs/a runs/b --robustness --groups translation corruption
    vitrail evaluate --model vit_tiny_patch16 --weights vit.safetensors --data imagenet/ --mean 0.5 --std 0.5
    ```

    Args:
        runs: Run folder; `--robustness` takes several.
    """
    if config.robustness:
        if not runs or config.data is not None or config.model is not None:
            raise ConfigError("--robustness takes run folders, and measures on their own held-out images")
        settings = {"groups": config.groups, "num_images": config.num_images, "seed": config.robustness_seed}
        settings |= {"batch_size": config.batch_size}
        with display(output) as shown:
            evaluate_robustness(shown, runs, typed(RobustnessConfig, settings))
        return
    if len(runs) > 1:
        raise ConfigError(f"{len(runs)} runs given; several are only compared with --robustness")
    run = runs[0] if runs else None
    if (run is None) == (config.model is None or config.weights is None or config.data is None):
        raise ConfigError("give either a run folder, or all of --model, --weights and --data")
    with display(output) as shown:
        if run is not None and config.data is None:
            values = evaluate_run(Run.open(run), batch_size=config.batch_size, progress=shown.progress)
            show_evaluation(shown, values)
            shown.result({name: values[name] for name in ("split", "scores", "reports")})
            return
        kind, report, lines = evaluate_elsewhere(config, None if run is None else Run.open(run), shown.progress)
        for line in (*lines, *report["remarks"]):
            shown.say(line)
        show_report(shown, report, [asdict(score) for score in kind.scores])
        shown.result(report)


def show_report(shown: Display, report: dict[str, Any], scores: Sequence[Mapping[str, Any]]) -> None:
    """The headline and the classes."""
    scores = telling_scores(scores, len(report["per_class"]))
    facts = [f"{one['title']} {figure(report[one['name']], percentage=one['percent'])}" for one in scores]
    facts.append(f"loss {number(report['loss'], 4)}")
    if "ece" in report:
        facts.append(f"calibration error {percent(report['ece'])}")
    if (most := majority(report)) is not None:
        facts.append(f"always '{most[0]}' {percent(most[1])}")
    shown.say(f"{report['num_images']} images: {', '.join(facts)}")
    rows = [row for row in report["per_class"] if row.get("support", 1)]
    columns = [name for name in (rows[0] if rows else ()) if name not in ("name", "support")]
    if not columns:
        return
    title = "Classes"
    if len(rows) > FEW_CLASSES:
        title = f"The {FEW_CLASSES} most difficult of {len(rows)} classes"
        rows = sorted(rows, key=lambda row: row[columns[-1]])[:FEW_CLASSES]
    counted = "support" in rows[0]
    shown.table(
        title,
        ("class", *(["images"] if counted else []), *(HEADINGS.get(name, name) for name in columns)),
        [
            (row["name"], *([row["support"]] if counted else []), *(percent(row[name]) for name in columns))
            for row in rows
        ],
    )


def show_evaluation(shown: Display, values: dict[str, Any]) -> None:
    """The weights in detail, and what every file of the run reaches."""
    scores = values["scores"]
    show_report(shown, values["reports"][WEIGHTS], scores)
    scores = telling_scores(scores, len(values["reports"][WEIGHTS]["per_class"]))
    shown.table(
        f"Every file, on the {values['split']} images",
        ("file", *(one["title"] for one in scores), "loss", "same class as the weights"),
        [
            (
                name,
                *(figure(report[one["name"]], percentage=one["percent"]) for one in scores),
                number(report["loss"], 4),
                percent(report["agreement"]),
            )
            for name, report in values["reports"].items()
        ],
    )
    numbers = (values.get("findings") or {}).get("numbers", {})
    if (same := numbers.get("teacher_agreement")) is not None:
        right = numbers.get("teacher_right")
        first = "" if right is None else f"is right in {percent(right)} and "
        shown.say(f"The teacher {first}says the same as the student in {percent(same)}; the report has both by class")
    trivial = (values.get("findings") or {}).get("trivial", {"scores": {}})
    known = [one for one in scores if one["name"] in trivial["scores"]]
    if known and majority(values["reports"][WEIGHTS]) is None:
        told = (f"{one['title']} {figure(trivial['scores'][one['name']], percentage=one['percent'])}" for one in known)
        shown.say(f"Without a look at an image, {trivial['answer']} has {', '.join(told)}")
    if found := values.get("confidence"):
        bound, chosen = f"Answers name objects from a probability of {found['min_confidence']:.2f} on", ""
        if own := found.get("by_class"):
            bound = f"Answers name each class from its own probability on ({min(own):.2f} to {max(own):.2f})"
            chosen = ", which chose them"
        shown.say(f"{bound}: F1 {percent(found['f1'])} on {found['num_images']} validation images{chosen}")
    for reason in values.get("stale", {}).values():
        shown.say(f"Left out: {reason}")
