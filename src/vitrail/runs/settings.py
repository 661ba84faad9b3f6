"""Flat settings, as the command line has them, as nested configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from vitrail.core.config import typed
from vitrail.core.errors import ConfigError
from vitrail.core.synonyms import nearest_names
from vitrail.runs.quantize import with_field_names

Config = TypeVar("Config")

OPTION_NAMES = {"data.path": "data", "data.seed": "split_seed", "options": "option"}
"""Dotted field -> its name as a setting, where that is not the field's own; the command line has the same."""


def configured(kind: type[Config], settings: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Config:
    """A configuration from flat settings; each sets the field of its name, also in a nested configuration.

    Args:
        kind: class of the configuration.
        settings: option of the command line -> value.
        given: values of known fields.

    Raises:
        ConfigError: a name is unknown, or a value is not allowed.
    """
    values: dict[str, Any] = {name: dict(value) for name, value in (given or {}).items()}
    for name, value in with_field_names(settings).items():
        path = field_path(kind, name)
        place = values
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return typed(kind, values)


def field_path(kind: type[Any], name: str) -> tuple[str, ...]:
    """The path of the field that a setting means, such as ``("augment", "mixup_alpha")`` for ``mixup_alpha``.

    Args:
        kind: class of the configuration.
        name: name of the field, at the top or in a nested configuration.

    Raises:
        ConfigError: there is no such field; the message has the nearest names.
    """
    if (path := _path_of(kind, name)) is not None:
        return path
    close = nearest_names(name, _names_of(kind), cutoff=0.6)
    hint = f"did you mean {' or '.join(close[:2])}?" if close else f"known are {', '.join(_names_of(kind))}"
    raise ConfigError(f"unknown setting {name}; {hint}")


def _names_of(kind: type[Any]) -> list[str]:
    """The names of all settings, those of nested configurations too."""
    types = get_type_hints(kind)
    inner = [field.name for field in fields(kind) if is_dataclass(types[field.name])]
    own = [field.name for field in fields(kind) if field.name not in inner]
    renamed = [OPTION_NAMES["data.seed"]] if "data" in inner else []
    return [*own, *renamed, *(name for field in inner for name in _names_of(types[field]))]


def _path_of(kind: type[Any], name: str) -> tuple[str, ...] | None:
    """The path of a field: at the top, else in a nested configuration."""
    known, types = [field.name for field in fields(kind)], get_type_hints(kind)
    if name in known:
        return (name,)
    meant = next((tuple(path.split(".")) for path, option in OPTION_NAMES.items() if option == name), ())
    if meant and meant[0] in known:
        return meant
    inner = ((field, _path_of(types[field], name)) for field in known if is_dataclass(types[field]))
    return next(((field, *path) for field, path in inner if path), None)
