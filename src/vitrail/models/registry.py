"""Every family by name: one explicit dictionary, no registration by import."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
from dataclasses import fields as dataclass_fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from vitrail.core.errors import CheckpointError, ConfigError, UnknownNameError
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
from vitrail.models.base import Backbone, BackboneConfig, Family
from vitrail.models.checkpoint import load_state, read_weights

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
    num_classes: int = 1000,
    in_chans: int = 3,
    image_size: int | tuple[int, int] | None = None,
    drop_path_rate: float = 0.0,
    weights: str | Path | None = None,
    **fields: Any,
) -> Backbone:
    """Build a model by name.

    Args:
        name: a variant, see :func:`list_models`.
        num_classes: outputs of the classifier; 0 gives pooled features.
        in_chans: channels of the image.
        image_size: height and width in pixels, one number for a square; the variant's own by default.
        drop_path_rate: stochastic depth of the last block.
        weights: a path or URL for :func:`load_checkpoint`.
        **fields: any other field of the family's configuration.

    Raises:
        UnknownNameError: no such model.
        ConfigError: no such field, or a value that the family does not allow.
        ImageSizeError: a size that the model cannot take.
        CheckpointError: weights that do not fit.
    """
    family = find_family(name)
    config = family.variants[name]
    _check_fields(name, config, fields)
    if image_size is not None:
        fields["image_size"] = as_image_size(image_size)
    config = replace(config, num_classes=num_classes, in_chans=in_chans, drop_path_rate=drop_path_rate, **fields)
    model = family.backbone(config)
    if weights is not None:
        load_checkpoint(model, weights)
    return model


def _check_fields(name: str, config: BackboneConfig, fields: dict[str, Any]) -> None:
    known = [field.name for field in dataclass_fields(config)]
    for field in fields:
        if field not in known:
            close = difflib.get_close_matches(field, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
            raise ConfigError(f"{name} has no field '{field}'; {hint}")


def load_checkpoint(model: Backbone, path_or_url: str | Path, *, replace_head: bool = False) -> str:
    """Load weights in our layout or the authors', from a file or an https URL; see :func:`~.checkpoint.load_state`.

    Position tables are resized where the image size differs. The classifier must have the model's size unless
    ``replace_head``, which keeps the model's own.

    Returns:
        the name of the layout that was recognised.

    Raises:
        CheckpointError: unreadable or unfitting, with the keys that do not fit.
    """
    path = _fetch(str(path_or_url)) if "://" in str(path_or_url) else Path(path_or_url)
    tables = family_of(model).checkpoint_keys
    return load_state(model, read_weights(path), tables, replace_head=replace_head, source=str(path_or_url))


def _fetch(url: str) -> Path:
    parts = urlparse(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise CheckpointError(f"weights URL {url} is not https; download it yourself and pass the file")
    address = hashlib.sha256(url.encode()).hexdigest()[:12]
    path = Path(torch.hub.get_dir()) / "vitrail" / f"{address}-{Path(parts.path).name}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path))
        except OSError as error:
            raise CheckpointError(f"cannot download {url}: {error}; check the address and the network") from error
    return path
