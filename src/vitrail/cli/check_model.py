"""``vitrail check-model``: the contract of a backbone, for the author of a family."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from vitrail.cli.display import Output, OutputOptions, display
from vitrail.contract import check_subject, find_subject
from vitrail.contract.promise import BrokenPromiseError


def check_model(
    name: str,
    /,
    *,
    compiled: Annotated[bool, Parameter(name="--compile", negative=())] = False,
    output: OutputOptions = Output(),
) -> None:
    """Check whether a family, a model or a token mixer keeps what every other part of Vitrail relies on.

    Shapes and names are checked for every variant, without memory for its weights. The smallest variant is then
    trained for a few steps, saved, fused and exported, and its file is run in every runtime. A token mixer is checked
    inside a small MetaFormer. One line for each check says `ok`, `failed` or `skipped`, and why; the exit status is 2
    if one failed.

    **Examples**

    ```sh
    vitrail check-model my_family --import my_models.py
    vitrail check-model MyMixer --import my_models.py --compile
    vitrail check-model edgevit_xxs --json
    ```

    Args:
        name: Name of a family, of a model, or of a token mixer.
        compiled: Check torch.compile too, which needs a C++ compiler and half a minute.
    """
    with display(output) as shown:
        subject = find_subject(name)
        results = []
        for one in check_subject(subject, slow=compiled):
            results.append(one)
            models = ", ".join(one.models) if one.models != (name,) else ""
            notes = ": ".join(filter(None, (models, one.reason)))
            shown.say(f"{one.result:<8} {one.check}{f' ({notes})' if notes else ''}")
        shown.result({"name": name, "checks": [one.to_dict() for one in results]})
    if failed := [one.check for one in results if one.result == "failed"]:
        raise BrokenPromiseError(f"{len(failed)} of {len(results)} checks of {name} failed: {'; '.join(failed)}")
