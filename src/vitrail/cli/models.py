"""``vitrail models``: what there is to choose from."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from vitrail.cli.display import Display, Output, OutputOptions, display, number
from vitrail.cli.words import split_numbers, split_words
from vitrail.core.errors import ConfigError
from vitrail.data import DataConfig
from vitrail.models import find_family, list_models
from vitrail.runs.card import model_card, model_summary
from vitrail.runs.model_choice import ModelChoice, choose_models
from vitrail.runs.model_rows import ModelChoiceConfig

CHOICE = Group("Options of --recommend", sort_key=10)

Choice = Parameter(group=CHOICE)
Words = Parameter(group=CHOICE, converter=split_words, consume_multiple=True, negative_iterable=())
Pixels = Parameter(group=CHOICE, converter=split_numbers, consume_multiple=True, negative_iterable=())
Switch = Parameter(group=CHOICE, negative=())


def models(  # long: one parameter an option
    pattern: str = "*",
    /,
    *,
    recommend: Annotated[bool, Switch] = False,
    data: Annotated[Path | None, Choice] = None,
    max_latency_ms: Annotated[float | None, Choice] = None,
    max_size_mb: Annotated[float | None, Choice] = None,
    image_size: Annotated[tuple[int, ...] | None, Pixels] = None,
    weights: Annotated[tuple[str, ...], Words] = (),
    task: Annotated[str | None, Choice] = None,
    measure: Annotated[bool, Switch] = False,
    output: OutputOptions = Output(),
) -> None:
    """List the models, show the card of one, or name models to start from.

    A pattern such as `'edgevit*'` lists what fits it: name, parameters, multiply-accumulates (MACs) for one image of
    the native size, public weights, and paper. An exact name shows the model's card: its tasks, stages, paper, code,
    licence, the layouts of checkpoints that load into it, and the weights that `--weights pretrained` downloads.

    `--recommend --data FOLDER` names models for these images and limits before anything is trained. Few images need
    weights that know other images; the folder's task, classes and images decide. Times are from a table, which names
    the machine that was measured, or with `--measure` of this machine. `vitrail probe` then compares them on the
    images themselves. After a training, `vitrail recommend RUN` answers another question: which of the files of
    finished runs to ship, by their measured accuracy.

    **Examples**

    ```sh
    vitrail models
    vitrail models 'vit_*'
    vitrail models edgevit_xxs
    vitrail models --recommend --data photos/ --max-latency-ms 10
    vitrail models 'edgevit*' --recommend --data photos/ --max-size-mb 20 --measure
    ```

    Args:
        pattern: Name of a model, or a shell-style pattern of names.
        recommend: Name models to start from, for the images of `--data` and the limits.
        data: Folder of images, as for `vitrail train`, or "sample". Default: none; `--recommend` needs it.
        max_latency_ms: Largest time of one image in ms, with one thread. Default: no limit.
        max_size_mb: Largest size of the float32 weights in MB (10^6 bytes). Default: no limit.
        image_size: Height and width of the model's images in pixels, or one number for both. Default: the model's own
            size.
        weights: Weights that are here, NAME=FILE or run folders, beside the public ones.
        task: Task of the images. Default: what the annotations in the folder are for.
        measure: Measure models on this machine (a minute or two), instead of looking into the table.
    """
    chosen = {
        "--data": data,
        "--max-latency-ms": max_latency_ms,
        "--max-size-mb": max_size_mb,
        "--image-size": image_size,
        "--weights": weights or None,
        "--task": task,
        "--measure": measure or None,
    }
    if recommend:
        if data is None:
            raise ConfigError("--recommend needs the images: add --data FOLDER")
        config = ModelChoiceConfig(
            data=DataConfig(path=str(data)),
            task=task,
            pattern=pattern,
            weights=weights,
            image_size=_one_or_pair(image_size),
            max_latency_ms=max_latency_ms,
            max_size_mb=max_size_mb,
            measure=measure,
        )
        with display(output) as shown:
            _recommend(shown, choose_models(config, progress=shown.progress))
        return
    if given := [name for name, value in chosen.items() if value is not None]:
        raise ConfigError(f"{given[0]} belongs to --recommend; add --recommend")
    names = list_models(pattern)
    if not names:
        find_family(pattern)  # raises with the nearest names
    with display(output) as shown:
        if names == [pattern]:
            _card(shown, pattern)
        else:
            _list(shown, names)


def _one_or_pair(size: tuple[int, ...] | None) -> int | tuple[int, int] | None:
    if size is None or len(size) == 1:
        return None if size is None else size[0]
    if len(size) != 2:
        raise ConfigError(f"--image-size {' '.join(map(str, size))} is neither one number nor height and width")
    return size[0], size[1]


def _recommend(shown: Display, choice: ModelChoice) -> None:
    shown.table(
        f"Models to start from, for {choice.task}",
        ("model", "weights", "pixels", "params", "MB", "ms", "timed", "why"),
        [
            (
                row.model,
                row.place,
                "x".join(map(str, row.image_size)),
                number(row.num_params / 1e6, 2, " M"),
                number(row.size_bytes / 1e6, 1),
                number(row.latency_ms, 1, "*" * row.contended),
                row.timed or "no",
                row.why,
            )
            for row in choice.rows
        ],
    )
    for note in choice.notes:
        shown.say(note)
    if choice.probe_command:
        shown.say(f"Compare them on these images, in a minute: {choice.probe_command}")
    shown.say(f"Next: {choice.next_command}")
    shown.result(
        {
            "task": choice.task,
            "models": [asdict(row) | {"size_bytes": row.size_bytes} for row in choice.rows],
            "notes": list(choice.notes),
            "probe_command": choice.probe_command,
            "next_command": choice.next_command,
        }
    )


def _list(shown: Display, names: list[str]) -> None:
    facts = [model_summary(name) for name in names]
    shown.table(
        f"{len(names)} models",
        ("name", "parameters", "MACs", "image size", "weights", "paper"),
        [
            (
                f["name"],
                number(f["params"] / 1e6, 2, " M"),
                number(f["macs"] / 1e9, 3, " G"),
                f["size"],
                len(f["weights"]) or "",
                f["paper"],
            )
            for f in facts
        ],
    )
    shown.say("A model's card: vitrail models NAME")
    shown.result(facts)


def _card(shown: Display, name: str) -> None:
    facts = model_card(name)
    shown.say(name)
    lines = {
        "Parameters": f"{facts['params']:,}",
        "MACs": f"{facts['macs']:,} for one image of {facts['size']} pixels",
        "Paper": ", ".join(filter(None, (facts["authors"], facts["title"], facts["paper"]))),
        "Code": facts["code"],
        "Checkpoints": f"layouts {', '.join(facts['checkpoint_layouts'])}; load with --weights FILE",
        "Tasks": ", ".join(facts["tasks"]),
        "Weights": facts["weights_note"],
        "Note": facts["note"],
    }
    for label, text in lines.items():
        if text:
            shown.say(f"  {label + ':':<13}{text}")
    shown.table(
        "Stages (levels of forward_intermediates)",
        ("level", "module", "channels", "stride", "map"),
        [(i, s["name"], s["channels"], s["stride"], s["map"]) for i, s in enumerate(facts["stages"])],
    )
    if facts["weights"]:
        _weights(shown, facts["weights"])
    shown.result(facts)


def _weights(shown: Display, weights: list[dict[str, Any]]) -> None:
    shown.table(
        "Weights on the Hugging Face hub: for --weights or create_model(weights=...); the nearest image size is taken",
        ("weights", "image size", "classes", "ImageNet top-1", "licence", "repository"),
        [
            (
                f"pretrained:{w['tag']}",
                w["size"],
                w["num_classes"] or "",
                f"{w['top1']:.2f} % ({w['source']})" if w["top1"] else "",
                w["licence"],
                w["repository"],
            )
            for w in weights
        ],
    )
