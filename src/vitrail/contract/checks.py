"""All checks by name, and what runs them on a family, a variant or a token mixer."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from vitrail.contract import computing, model_files, shapes
from vitrail.contract.promise import Make, NotApplicableError
from vitrail.core.errors import UnknownNameError, VitrailError
from vitrail.core.registered import find_registration
from vitrail.core.synonyms import nearest_names
from vitrail.layers import TOKEN_MIXERS
from vitrail.models import FAMILIES, create_model, find_family, list_models
from vitrail.models.registry import is_model
from vitrail.models.timm_model import PREFIX

MIXER_MODEL = "poolformer_nano"
"""Model whose token mixer is replaced by one that is checked."""

SHOWN = 300
"""Characters of an error that are shown."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One promise.

    Attributes:
        name: what is promised.
        run: raises an error where the promise is broken.
        every: check all variants, since it costs nothing; else the smallest one.
        slow: left out unless it is asked for.
    """

    name: str
    run: Callable[[Make], None]
    every: bool = False
    slow: bool = False


CHECKS: tuple[Check, ...] = (
    Check(name="feature_info is true to the shapes", run=shapes.levels_are_as_announced, every=True),
    Check(name="names of parameters are true", run=shapes.names_of_parameters_are_true, every=True),
    Check(name="the classifier can be changed", run=shapes.classifier_can_be_changed, every=True),
    Check(name="the configuration rebuilds the model", run=shapes.rebuilds_from_its_config, every=True),
    Check(name="images do not mix", run=computing.images_do_not_mix),
    Check(name="any legal image size is taken", run=computing.takes_other_sizes),
    Check(name="chosen levels are the right ones", run=computing.chosen_levels_are_right),
    Check(name="training lowers the loss", run=computing.training_lowers_the_loss),
    Check(name="gradient checkpointing changes nothing", run=computing.gradient_checkpointing_changes_nothing),
    Check(name="weights can be saved and loaded", run=computing.state_dict_round_trip),
    Check(name="fusing changes no output", run=computing.fusing_changes_no_output),
    Check(name="torch.export agrees", run=computing.exports_with_torch),
    Check(name="the ONNX file agrees in every runtime", run=model_files.files_agree_at_any_batch_size),
    Check(name="torch.compile takes it as one graph", run=computing.compiles_without_graph_breaks, slow=True),
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is checked.

    Attributes:
        name: as it was given.
        variants: names of models, the smallest first.
        fields: further arguments of :func:`vitrail.create_model`.
    """

    name: str
    variants: tuple[str, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)

    def make(self, variant: str) -> Make:
        """What makes new models of a variant."""
        return partial(create_model, variant, **self.fields)


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of one check.

    Attributes:
        check: name of the check.
        result: "ok", "failed" or "skipped".
        models: models that were checked.
        reason: why it failed or was skipped.
    """

    check: str
    result: Literal["ok", "failed", "skipped"]
    models: tuple[str, ...]
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def find_subject(name: str) -> Subject:
    """A family, a variant, or a token mixer, which is checked inside a small model.

    Raises:
        UnknownNameError: there is nothing of that name.
    """
    variants = list_models()  # it brings the entry points of packages
    if name in FAMILIES:
        return Subject(name=name, variants=tuple(_by_size(FAMILIES[name].variants)))
    if name in variants or (name.startswith(PREFIX) and is_model(name)):
        return Subject(name=name, variants=(name,))
    if name in TOKEN_MIXERS:
        return Subject(name=name, variants=(MIXER_MODEL,), fields={"token_mixer": name})
    if find_registration("task", name) or find_registration("head of segmentation", name):
        raise UnknownNameError(f"'{name}' is no model; families, their variants and token mixers are checked")
    close = nearest_names(name, [*FAMILIES, *variants, *TOKEN_MIXERS])
    hint = f"did you mean {' or '.join(close[:2])}?" if close else "yours needs --import FILE"
    raise UnknownNameError(f"there is no family, variant or token mixer '{name}'; {hint}")


def _by_size(variants: Mapping[str, Any]) -> list[str]:
    """The variants, that of the fewest operations first; a model that cannot be built is left where it stands."""

    def cost(name: str) -> float:
        try:
            with torch.device("meta"):
                model = find_family(name).backbone(variants[name])
        except Exception:  # noqa: BLE001 (its check tells what is wrong)
            return 0.0
        height, width = variants[name].image_size
        return sum(parameter.numel() for parameter in model.parameters()) * height * width

    return sorted(variants, key=cost)


def check_subject(subject: Subject, *, slow: bool = False, checks: Sequence[Check] = CHECKS) -> Iterator[CheckResult]:
    """Run the checks, one after the other.

    Args:
        subject: what is checked.
        slow: run slow checks too.
        checks: which ones.
    """
    for check in checks:
        variants = subject.variants if check.every else subject.variants[:1]
        if check.slow and not slow:
            yield CheckResult(check=check.name, result="skipped", models=variants, reason="slow; pass --compile")
            continue
        yield _result(check, subject, variants)


def _result(check: Check, subject: Subject, variants: tuple[str, ...]) -> CheckResult:
    for variant in variants:
        told = partial(CheckResult, check=check.name, models=(variant,))
        try:
            torch.manual_seed(0)
            check.run(subject.make(variant))
        except NotApplicableError as reason:
            return told(result="skipped", reason=str(reason))
        except VitrailError as error:
            return told(result="failed", reason=str(error))
        except Exception as error:  # noqa: BLE001 (whatever a user's model raises)
            return told(result="failed", reason=_told(error))
    return CheckResult(check=check.name, result="ok", models=variants)


def _told(error: Exception) -> str:
    """An error with the last line outside of PyTorch."""
    text = " ".join(str(error).split())[:SHOWN]
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}torch{os.sep}" not in frame.filename
    ]
    place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"
