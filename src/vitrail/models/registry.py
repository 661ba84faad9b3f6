"""Every family by name: one explicit dictionary, no registration by import but of users' own families."""

from __future__ import annotations

import difflib
import fnmatch
import logging
from collections.abc import Container, Iterator, Mapping
from dataclasses import fields as dataclass_fields, replace
from pathlib import Path
from typing import Any

from vitrail.core.errors import CheckpointError, ConfigError, UnknownNameError
from vitrail.core.import_code import load_installed
from vitrail.core.registered import resolved
from vitrail.core.types import as_image_size
from vitrail.models import (
    edgevit,
    maxvit,
    mobilevit,
    poolformer,
    remvit,
    reswin,
    revit,
    vit,
    vitae,
    vitae_plain,
    vitaev2,
)
from vitrail.models.base import Backbone, BackboneConfig
from vitrail.models.checkpoint import find_layout, load_state
from vitrail.models.family import Family
from vitrail.models.pretrained import PretrainedWeights, parse_pretrained
from vitrail.models.timm_model import PREFIX as TIMM, TimmModel, timm_family, timm_names
from vitrail.models.weights_source import WeightsSource, open_public, open_weights

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        vit.FAMILY,
        edgevit.FAMILY,
        revit.FAMILY,
        reswin.FAMILY,
        remvit.FAMILY,
        vitae.FAMILY,
        vitaev2.FAMILY,
        vitae_plain.FAMILY,
        maxvit.FAMILY,
        mobilevit.FAMILY,
        mobilevit.EX_FAMILY,
        poolformer.FAMILY,
    )
}

LOGGER = logging.getLogger("vitrail")


def list_models(pattern: str = "*") -> list[str]:
    """Names of all variants that fit a shell-style pattern, e.g. ``"edgevit*"``; those of users' own families too.

    A pattern such as ``"timm:*vit*"`` lists the models of timm.

    Raises:
        MissingDependencyError: timm is asked for and not installed.
    """
    if pattern.startswith(TIMM):
        return sorted(timm_names(pattern))
    load_installed()
    return sorted(name for family in FAMILIES.values() for name in fnmatch.filter(family.variants, pattern))


def is_model(name: str) -> bool:
    """Whether :func:`create_model` takes the name."""
    try:
        find_family(name)
    except UnknownNameError:
        return False
    return True


def find_family(name: str) -> Family:
    """The family that has the variant ``name``.

    Raises:
        UnknownNameError: with the nearest names.
        MissingDependencyError: it is a model of timm, which is not installed.
    """
    if name.startswith(TIMM):
        return timm_family(name)
    if (family := _family_with(name)) is not None:
        return family
    load_installed()
    if (family := _family_with(name)) is not None:
        return family
    close = difflib.get_close_matches(name, list_models(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "'vitrail models' lists them; yours needs --import FILE"
    raise UnknownNameError(f"unknown model '{name}'; {hint}")


def _family_with(variant: str) -> Family | None:
    return next((family for family in FAMILIES.values() if variant in family.variants), None)


def family_of(model: Backbone) -> Family:
    """The family that a model belongs to."""
    if isinstance(model, TimmModel):
        return timm_family(TIMM + model.config.architecture)
    return next(family for family in FAMILIES.values() if type(model) is family.backbone)


def create_model(
    name: str,
    num_classes: int | None = None,
    in_chans: int = 3,
    image_size: int | tuple[int, int] | None = None,
    drop_path_rate: float = 0.0,
    weights: str | Path | None = None,
    replace_head: bool | None = None,
    **fields: Any,
) -> Backbone:
    """Build a model by name.

    Args:
        name: a variant, see :func:`list_models`; or ``timm:NAME`` for any model of timm, perhaps with the tag of its
            weights as in ``timm:resnet18.a1_in1k``.
        num_classes: outputs of the classifier; 0 gives pooled features. The default is 1000, or with weights from the
            hub their number.
        in_chans: channels of the image.
        image_size: height and width in pixels, one number for a square; by default the variant's own, or that
            of the weights from the hub.
        drop_path_rate: stochastic depth of the last block.
        weights: a path or address for :func:`load_checkpoint`; or ``"pretrained"``, or ``"pretrained:TAG"`` (such as
            ``"pretrained:augreg_in1k"``), for the public ones in the family's ``weights``. The model's
            ``preprocessing`` is theirs where the table, a run or timm's ``config.json`` beside them says it, and
            ``remarks`` say what else was decided. Fields in which layouts differ follow the weights unless given.
        replace_head: keep a fresh classifier where the weights have another one or none; by default only where
            ``num_classes`` is 0, or asks weights from the hub for it.
        **fields: any other field of the family's configuration.

    Raises:
        UnknownNameError: no such model.
        ConfigError: no such field, or a value that the family does not allow.
        ImageSizeError: a size that the model cannot take.
        CheckpointError: weights that do not fit, do not exist, or cannot be downloaded.
    """
    family = find_family(name)
    config = family.variants[name]
    _check_fields(name, config, fields)
    fields = {field: resolved(value, field) for field, value in fields.items()}
    size = None if image_size is None else as_image_size(image_size)
    tag = parse_pretrained(str(weights))
    public = None
    if tag is not None:
        public = family.find_weights(name, tag, size or config.image_size)
        size = size or public.image_size
        num_classes = public.num_classes if num_classes is None else num_classes
        replace_head = True if replace_head is None else replace_head
    config = replace(
        config,
        num_classes=config.num_classes if num_classes is None else num_classes,
        in_chans=in_chans,
        image_size=size or config.image_size,
        drop_path_rate=drop_path_rate,
        **fields,
    )
    if replace_head is None:
        replace_head = config.num_classes == 0
    model = family.backbone(config)
    if weights is None:
        return model
    given = open_public(public) if public is not None else open_weights(str(weights), _public())
    # Public weights of the right number of classes must have a classifier; only another one may be missing.
    keep_head = replace_head and (public is None or public.num_classes != model.num_classes)
    return _with_weights(model, given, replace_head=bool(keep_head), chosen=fields)


def _with_weights(model: Backbone, given: WeightsSource, *, replace_head: bool, chosen: Container[str]) -> Backbone:
    """The model with the weights; another one where their layout decides a field that was not chosen."""
    decided = {} if given.public else _differing(model, given, chosen)
    if decided:
        model = family_of(model).backbone(replace(model.config, **decided))
        model.remarks = (f"{given.name} is of a network with {_listed(decided)}, and so is the model",)
    _load(model, given, replace_head=replace_head, chosen=chosen)
    return model


def _check_fields(name: str, config: BackboneConfig, fields: dict[str, Any]) -> None:
    known = [field.name for field in dataclass_fields(config)]
    for field in fields:
        if field not in known:
            close = difflib.get_close_matches(field, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
            raise ConfigError(f"{name} has no field '{field}'; {hint}")


def load_checkpoint(model: Backbone, path_or_url: str | Path, *, replace_head: bool = False) -> str:
    """Load weights in our layout or the authors', see :func:`~.checkpoint.load_state`.

    Position tables are resized where the image size differs. The classifier must have the model's size unless
    ``replace_head``, which keeps the model's own. ``model.preprocessing`` becomes that of the weights where the table
    of public weights, a run, or timm's ``config.json`` beside them says it.

    Args:
        model: receives the weights.
        path_or_url: a file, ``https://...``, or ``hf://owner/repository[@revision]/file`` on the Hugging Face hub.
        replace_head: keep the model's own classifier where the checkpoint's differs or is missing.

    Returns:
        the name of the layout that was recognised.

    Raises:
        CheckpointError: unreadable or unfitting, with the keys that do not fit.
    """
    given = open_weights(str(path_or_url), _public())
    differing = {} if given.public else _differing(model, given, ())
    if differing:
        raise CheckpointError(
            f"{given.name} is of a network with {_listed(differing)}; build the model so, or by "
            "create_model(..., weights=...), which does it"
        )
    model.remarks = ()
    return _load(model, given, replace_head=replace_head, chosen=())


def decided_fields(model: Backbone, name: str) -> dict[str, Any]:
    """Fields of the configuration that weights have decided: arguments of :func:`create_model` without the weights.

    Args:
        model: made by :func:`create_model`.
        name: its variant.
    """
    family = find_family(name)
    fields = {field for layout in family.layout_fields.values() for field in layout}
    return {
        field: getattr(model.config, field)
        for field in sorted(fields)
        if getattr(model.config, field) != getattr(family.variants[name], field)
    }


def _public() -> Iterator[PretrainedWeights]:
    return (one for family in FAMILIES.values() for entries in family.weights.values() for one in entries)


def _differing(model: Backbone, given: WeightsSource, chosen: Container[str]) -> dict[str, Any]:
    """Fields that the layout of the weights, or their run, decides to be others than the model's."""
    family = family_of(model)
    layout = find_layout(model, given.state, family.checkpoint_keys, given.name).layout
    wanted = dict(family.layout_fields.get(layout, {}))
    if given.model in family.variants:
        config = family.variants[given.model]
        names = {name for fields in family.layout_fields.values() for name in fields}
        wanted = {name: given.fields.get(name, getattr(config, name)) for name in names}
    return {
        name: value for name, value in wanted.items() if name not in chosen and value != getattr(model.config, name)
    }


def _check_run(model: Backbone, given: WeightsSource, chosen: Container[str]) -> None:
    """Refuse the weights of a run whose network differs in what no tensor's shape shows."""
    variants = family_of(model).variants
    if given.model not in variants:
        return
    free = {field.name for field in dataclass_fields(BackboneConfig)}
    known = [field.name for field in dataclass_fields(model.config) if field.name not in free]
    theirs = {name: resolved(given.fields.get(name, getattr(variants[given.model], name)), name) for name in known}
    other = {
        name: value for name, value in theirs.items() if name not in chosen and value != getattr(model.config, name)
    }
    if other:
        raise CheckpointError(
            f"{given.name} is a run of {given.model} with {_listed(other)}, which this model does not have; build it "
            "so (in training: model_fields of a --config file)"
        )


def _load(model: Backbone, given: WeightsSource, *, replace_head: bool, chosen: Container[str]) -> str:
    _check_run(model, given, chosen)
    family = family_of(model)
    layout = load_state(
        model,
        given.state,
        family.checkpoint_keys,
        replace_head=replace_head,
        source=given.name,
        image_size=given.image_size,
    )
    if layout in family.layout_notes:
        model.remarks += (f"{given.name} has the layout '{layout}': {family.layout_notes[layout]}",)
    model.remarks += given.remarks
    given.give_preprocessing(model)
    for remark in model.remarks:
        LOGGER.info(remark)
    return layout


def _listed(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in fields.items())
