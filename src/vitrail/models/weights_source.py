"""Weights with what is known of them: where they are from, and which images and which network they were trained with.

Three sources say more than tensors: our table of public weights, ``run.json`` beside the weights of a run, and
``config.json`` beside weights that timm saved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor

from vitrail.core.errors import CheckpointError, ConfigError, VitrailError
from vitrail.core.files import read_json
from vitrail.core.paths import user_path
from vitrail.core.types import ImageSize, Interpolation, Preprocessing, as_image_size
from vitrail.models.base import Backbone
from vitrail.models.checkpoint import read_weights
from vitrail.models.hub import fetch_from_hub, fetch_weights, split_address
from vitrail.models.pretrained import PretrainedWeights

_HUB_PAGE = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)(?:\?.*)?")

TIMM_NAMES = {"mean": "mean", "std": "std", "interpolation": "interpolation", "crop_pct": "crop_fraction"}
"""Entry of timm's ``pretrained_cfg`` -> field of the preprocessing."""


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Weights and what is known of them.

    Attributes:
        name: path or address, as messages call it.
        state: names -> tensors.
        public: entry of the table of public weights, if they are in it.
        told_by: file or address that says which images they expect; "" where nothing does.
        told: fields of the preprocessing that it says.
        model: name of the model of a run; "" for other weights.
        fields: fields of the configuration with which that model differs from its variant.
        image_size: (height, width) of the training images, where a run or the table says it.
        remarks: sentences on what was told and cannot be done.
    """

    name: str
    state: Mapping[str, Tensor]
    public: PretrainedWeights | None = None
    told_by: str = ""
    told: Mapping[str, Any]
    model: str = ""
    fields: Mapping[str, Any]
    image_size: ImageSize | None = None
    remarks: tuple[str, ...] = ()

    def give_preprocessing(self, model: Backbone) -> None:
        """Let the model expect the images that the weights were trained with, as far as it is known."""
        if not self.told_by:
            return
        known = self.public.preprocessing if self.public else model.preprocessing
        model.preprocessing = replace(known, image_size=model.config.image_size, **self.told)
        model.preprocessing_source = self.told_by


def open_public(weights: PretrainedWeights, name: str = "", path: Path | None = None) -> WeightsSource:
    """Weights of the table, downloaded where they are not in the cache.

    Raises:
        CheckpointError: they cannot be downloaded or are damaged.
    """
    path = path or fetch_from_hub(weights.hub_id, weights.file, weights.revision, weights.sha256)
    return WeightsSource(
        name=name or weights.hub_id,
        state=read_weights(path),
        public=weights,
        told_by=f"hf://{weights.hub_id}",
        told={},
        fields={},
        image_size=weights.image_size,
    )


def open_weights(address: str, table: Iterable[PretrainedWeights]) -> WeightsSource:
    """Weights of a path or an address.

    Args:
        address: a file, a folder with ``model.safetensors``, ``https://...``, or ``hf://owner/repository/file``.
        table: the public weights.

    Raises:
        CheckpointError: they cannot be read, or what is beside them is wrong.
    """
    if "://" not in address:
        path = user_path(address)
        return _beside(address, path, path if path.is_dir() else path.parent)
    path = fetch_weights(address)
    page = _HUB_PAGE.fullmatch(address)
    if not address.startswith("hf://") and page is None:
        return WeightsSource(name=address, state=read_weights(path), told={}, fields={})
    hub_id, revision, file = page.groups() if page else split_address(address)
    if entry := next((one for one in table if (one.hub_id, one.file) == (hub_id, file)), None):
        return open_public(entry, address, path)
    try:
        description = fetch_from_hub(hub_id, "config.json", revision)
    except CheckpointError as error:
        if not isinstance(error.__cause__, EntryNotFoundError):
            raise  # a repository need not have one, but one that cannot be read may say something
        return WeightsSource(name=address, state=read_weights(path), told={}, fields={})
    return _of_timm(address, path, description)


def run_of(address: str) -> tuple[str, str]:
    """The model and the task of the run that weights belong to; "" and "" where no run does.

    Raises:
        CheckpointError: its description cannot be read.
    """
    path = None if "://" in address else user_path(address)
    description = None if path is None else (path if path.is_dir() else path.parent) / "run.json"
    if description is None or not description.is_file():
        return "", ""
    values = _entries(description)
    return str(_table(values, "model", description).get("name", "")), str(values.get("task", ""))


FREE = ("num_classes", "image_size", "drop_path_rate")
"""Fields of a run's model that follow from the data, or do not belong to its network."""


def fields_of_run(address: str) -> dict[str, Any]:
    """Fields in which the network of a run differs from its variant; none where the weights belong to no run.

    Raises:
        CheckpointError: its description cannot be read.
    """
    path = None if "://" in address else user_path(address)
    description = None if path is None else (path if path.is_dir() else path.parent) / "run.json"
    if description is None or not description.is_file():
        return {}
    known = _table(_table(_entries(description), "model", description), "fields", description)
    return {name: _plain(value) for name, value in known.items() if name not in FREE}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _beside(name: str, path: Path, folder: Path) -> WeightsSource:
    """Weights of a path, with the description that lies in their folder."""
    for home in (folder, folder.parent) if folder.name == "checkpoints" else (folder,):
        if (home / "run.json").is_file():
            return _of_run(name, path, home / "run.json")
    if (folder / "config.json").is_file():
        return _of_timm(name, path, folder / "config.json")
    return WeightsSource(name=name, state=read_weights(path), told={}, fields={})


def _of_run(name: str, path: Path, description: Path) -> WeightsSource:
    values = _entries(description)
    model = _table(values, "model", description)
    fields, known = _table(model, "fields", description), _table(values, "preprocessing", description)
    try:
        size = as_image_size(tuple(fields["image_size"])) if "image_size" in fields else None
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{description}: image_size={fields['image_size']!r} is no size; {_RESTORE}") from error
    told: dict[str, Any] = {field: known[field] for field in ("mean", "std", "interpolation") if field in known}
    return WeightsSource(
        name=name,
        state=read_weights(path),
        told_by=str(description) if told else "",
        told=_checked(told, description),
        model=str(model.get("name", "")),
        fields={key: _plain(value) for key, value in fields.items()},
        image_size=size,
    )


def _of_timm(name: str, path: Path, description: Path) -> WeightsSource:
    known = _table(_entries(description), "pretrained_cfg", description)
    told = {ours: known[theirs] for theirs, ours in TIMM_NAMES.items() if known.get(theirs) is not None}
    remarks = []
    if told.get("interpolation") not in (None, *get_args(Interpolation)):
        remarks.append(
            f"{description}: interpolation '{told.pop('interpolation')}' is not known; the family's is taken"
        )
    return WeightsSource(
        name=name,
        state=read_weights(path),
        told_by=str(description) if told else "",
        told=_checked(told, description),
        fields={},
        remarks=tuple(remarks),
    )


_RESTORE = "restore the file, or move the weights to a folder without it and say --mean, --std and --interpolation"


def _entries(description: Path) -> dict[str, Any]:
    try:
        values = read_json(description)
    except VitrailError as error:
        raise CheckpointError(f"{error}; {_RESTORE}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{description} is not a table of names and values; {_RESTORE}")
    return values


def _table(values: Mapping[str, Any], name: str, description: Path) -> dict[str, Any]:
    entry = values.get(name) or {}
    if not isinstance(entry, dict):
        raise CheckpointError(f"{description}: '{name}' is not a table of names and values; {_RESTORE}")
    return entry


def _checked(told: Mapping[str, Any], description: Path) -> dict[str, Any]:
    """The fields that were told, as a preprocessing has them."""
    try:
        changed = Preprocessing().changed(**told)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{description}: {error}; {_RESTORE}") from error
    return {name: getattr(changed, name) for name in told}
