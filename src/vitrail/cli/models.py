"""``vitrail models``: what there is to choose from."""

from __future__ import annotations

from typing import Any

from vitrail.cli.display import Display, Output, OutputOptions, display, number
from vitrail.models import find_family, list_models
from vitrail.runs.card import model_card, model_summary


def models(pattern: str = "*", /, *, output: OutputOptions = Output()) -> None:
    """List the models, or show the card of one.

    A pattern such as `'edgevit*'` lists what fits it: name, parameters, multiply-accumulates (MACs) for one image of
    the native size, public weights, and paper. An exact name shows the model's card: its tasks, stages, paper, code,
    licence, the layouts of checkpoints that load into it, and the weights that `--weights pretrained` downloads.

    **Examples**

    ```sh
    vitrail models
    vitrail models 'vit_*'
    vitrail models edgevit_xxs
    ```

    Args:
        pattern: Name of a model, or a shell-style pattern of names.
    """
    names = list_models(pattern)
    if not names:
        find_family(pattern)  # raises with the nearest names
    with display(output) as shown:
        if names == [pattern]:
            _card(shown, pattern)
        else:
            _list(shown, names)


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
