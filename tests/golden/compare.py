"""Reference logits and stage outputs, and how far a model is from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from golden.fill import fill, image
from torch import Tensor

from vitrail.models import Backbone, create_model, family_of
from vitrail.models.checkpoint import load_state

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Golden:
    """One reference file: how its weights and input are made, and what came out."""

    values: dict

    @classmethod
    def load(cls, name: str) -> Golden:
        """``edgevit/edgevit_xxs`` and the like."""
        return cls(json.loads((DATA / f"{name}.json").read_text()))

    @property
    def state(self) -> dict[str, Tensor]:
        """The weights under the reference's names, without what the model computes itself."""
        rows = (row for row in self.values["tensors"] if "computed" not in row[3:])
        return {name: torch.from_numpy(fill(name, shape)) for name, shape, *_ in rows}

    @property
    def image(self) -> Tensor:
        given = self.values["input"]
        return torch.from_numpy(image(given["shape"], given["seed"])).double()

    @property
    def logits(self) -> Tensor:
        return torch.tensor(self.values.get("logits") or self.values["logits_f64"], dtype=torch.float64)

    @property
    def num_parameters(self) -> int:
        return self.values.get("parameters") or self.values["params"]

    @property
    def stages(self) -> list[dict]:
        return self.values.get("stages") or self.values["features"]


def load_golden(model: Backbone, golden: Golden) -> Backbone:
    """The model in float64 and evaluation mode with the golden's weights, through the family's key table."""
    load_state(model.double().eval(), golden.state, family_of(model).checkpoint_keys)
    return model


@cache
def _filled(name: str, reference: str) -> Backbone:
    return load_golden(create_model(name), Golden.load(reference))


def filled_model(name: str, reference: str) -> Backbone:
    """A model of its own (it may be broken on purpose) with the weights of a reference file."""
    return deepcopy(_filled(name, reference))


def logit_error(model: Backbone, golden: Golden) -> float:
    """Relative L2 distance of the logits."""
    with torch.no_grad():
        logits = model(golden.image)
    return ((logits - golden.logits).norm() / golden.logits.norm()).item()


def stage_errors(model: Backbone, golden: Golden, modules: Mapping[str, str]) -> dict[str, float]:
    """How far each stage is off, relative to its standard deviation: mean, standard deviation and first numbers.

    Args:
        model: with the golden's weights.
        golden: the reference.
        modules: the reference's stage name -> path of our module whose output it is.
    """
    outputs: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(path).register_forward_hook(lambda _m, _i, out, name=name: outputs.update({name: out}))
        for name, path in modules.items()
    ]
    with torch.no_grad():
        model(golden.image)
    for hook in hooks:
        hook.remove()
    errors = {}
    for stage in golden.stages:
        if stage["name"] not in modules:
            continue
        out = outputs[stage["name"]]
        assert list(out.shape) == stage["shape"], f"{stage['name']}: {list(out.shape)} is not {stage['shape']}"
        first = out.flatten()[: len(stage["first8"])]
        distances = [
            abs(out.mean().item() - stage["mean"]),
            abs(out.std(correction=0).item() - stage["std"]),
            (first - torch.tensor(stage["first8"], dtype=first.dtype)).abs().max().item(),
        ]
        errors[stage["name"]] = max(distances) / stage["std"]
    return errors
