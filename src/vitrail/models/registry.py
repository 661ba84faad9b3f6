"""Every family by name: one explicit dictionary, no registration by import."""

from __future__ import annotations

import difflib
import fnmatch
from dataclasses import fields as dataclass_fields, replace
from pathlib import Path
from typing import Any

from vitrail.core.errors import ConfigError, UnknownNameError
from vitrail.core.paths import user_path
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
from vitrail.models.checkpoint import load_state, read_weights
from vitrail.models.family import Family
from vitrail.models.hub import fetch_from_hub, fetch_weights
from vitrail.models.pretrained import PretrainedWeights, parse_pretrained

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


def list_models(pattern: str = "*") -> list[str]:
    """Names of all variants that fit a shell-style pattern, e.g. ``"edgevit*"``."""
    return sorted(name for family in FAMILIES.values() for name in fnmatch.filter(family.variants, pattern))


def find_family(name: str) -> Family:
    """The family that has the variant ``name``.

    Raises:
        UnknownNameError: with the nearest names.
    """
    for family in FAMILIES.values():
        if name in family.variants:
            return family
    close = difflib.get_close_matches(name, list_models(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "'vitrail models' lists them"
    raise UnknownNameError(f"unknown model '{name}'; {hint}")


def family_of(model: Backbone) -> Family:
    """The family that a model belongs to."""
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
        name: a variant, see :func:`list_models`.
        num_classes: outputs of the classifier; 0 gives pooled features. The default is 1000, or with weights from the
            hub their number.
        in_chans: channels of the image.
        image_size: height and width in pixels, one number for a square; by default the variant's own, or that
            of the weights from the hub.
        drop_path_rate: stochastic depth of the last block.
        weights: a path or address for :func:`load_checkpoint`; or ``"pretrained"``, or ``"pretrained:TAG"`` (such as
            ``"pretrained:augreg_in1k"``), for the public ones in the family's ``weights``: the model's
            ``preprocessing`` is then theirs.
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
    model = family.backbone(config)
    if public is not None:
        _load_public(model, public, replace_head=bool(replace_head))
    elif weights is not None:
        without_head = num_classes == 0 if replace_head is None else replace_head
        load_checkpoint(model, weights, replace_head=without_head)
    return model


def _load_public(model: Backbone, weights: PretrainedWeights, *, replace_head: bool) -> None:
    path = fetch_from_hub(weights.hub_id, weights.file, weights.revision, weights.sha256)
    tables = family_of(model).checkpoint_keys
    # A classifier of the right size must be there; only another one may be missing.
    replace_head = replace_head and weights.num_classes != model.num_classes
    load_state(model, read_weights(path), tables, replace_head=replace_head, source=weights.hub_id)
    model.preprocessing = replace(weights.preprocessing, image_size=model.config.image_size)


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
    ``replace_head``, which keeps the model's own.

    Args:
        model: receives the weights.
        path_or_url: a file, ``https://...``, or ``hf://owner/repository[@revision]/file`` on the Hugging Face hub.
        replace_head: keep the model's own classifier where the checkpoint's differs or is missing.

    Returns:
        the name of the layout that was recognised.

    Raises:
        CheckpointError: unreadable or unfitting, with the keys that do not fit.
    """
    path = fetch_weights(str(path_or_url)) if "://" in str(path_or_url) else user_path(path_or_url)
    tables = family_of(model).checkpoint_keys
    return load_state(model, read_weights(path), tables, replace_head=replace_head, source=str(path_or_url))
