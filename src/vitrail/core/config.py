"""Configurations as frozen dataclasses: conversion from plain values, checks and comparison."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from vitrail.core.errors import ConfigError, VitrailError
from vitrail.core.synonyms import nearest_names

T = TypeVar("T")


def typed(config_type: type[T], values: Mapping[str, Any]) -> T:
    """A configuration from plain values of JSON, YAML or the command line.

    Raises:
        ConfigError: an unknown field, or a value of the wrong type.
        VitrailError: the configuration's own check failed; fields have their full names (``data.seed``).
    """
    values = _spread_all(config_type, values)
    _check_names(config_type, values, "")
    try:
        kind: Any = config_type
        return _adapter(kind).validate_python(values)
    except ValidationError as error:
        raise _first_complaint(config_type, values, error) from error


def _spread_all(config_type: type[Any], values: Any) -> Any:
    """Values with a table where a text stands for a nested configuration with a ``path``."""
    if not isinstance(values, Mapping):
        return values
    kinds = get_type_hints(config_type)
    nested = {name: value for name, value in values.items() if isinstance(value, str | os.PathLike)}
    return dict(values) | {
        name: _spread(kinds[name], value, name)
        for name, value in nested.items()
        if name in kinds and _is_configuration(kinds[name]) and "path" in get_type_hints(kinds[name])
    }


def choices(kind: Any) -> tuple[str, ...]:
    """The words of a ``Literal`` type, also inside a tuple or beside None; empty for other types."""
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    return tuple(dict.fromkeys(word for inner in get_args(kind) for word in choices(inner)))


def convert_fields(config: Any) -> None:
    """Give the fields of a configuration their types, for configurations that are made in Python.

    It is the first step of ``__post_init__``: ``epochs="5"`` becomes 5, a path becomes text, and ``data="photos"``
    becomes the configuration that has this ``path``.

    Raises:
        ConfigError: a value is not of the field's type, or not one of its choices.
        VitrailError: the check of a nested configuration failed.
    """
    for name, kind in get_type_hints(type(config)).items():
        object.__setattr__(config, name, convert(kind, getattr(config, name), name))


def convert(kind: Any, value: Any, name: str) -> Any:
    """A value of the type ``kind``.

    Args:
        kind: type of a field or an argument.
        value: plain value, path, number of NumPy or PyTorch, or a value of that type.
        name: name of the field in messages.

    Raises:
        ConfigError: the value is not of that type.
    """
    if _is_configuration(kind) and not is_dataclass(value):
        return typed(kind, _spread(kind, value, name))
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        plain = os.fspath(value) if isinstance(value, os.PathLike) else _plain_number(value)
        if plain is not None:
            return convert(kind, plain, name)
        known = choices(kind)
        reason = error.errors()[0]["msg"]
        text = _choose(known) if known else f"is not allowed: {reason[0].lower()}{reason[1:]}"
        raise ConfigError(text, **{name: value}) from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=None if _is_configuration(kind) else ConfigDict(arbitrary_types_allowed=True))


def _plain_number(value: Any) -> Any:
    """A number of NumPy or PyTorch as one of Python; None for anything else."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else None


def _spread(kind: type[Any], value: Any, name: str) -> Mapping[str, Any]:
    """The fields of a nested configuration; a text or a path stands for its ``path``."""
    if isinstance(value, str | os.PathLike) and "path" in (field.name for field in fields(kind)):
        return {"path": os.fspath(value)}
    if not isinstance(value, Mapping):
        raise ConfigError(f"is not a table of fields and values, nor {kind.__name__}(...)", **{name: value})
    return value


def differing_fields(old: Mapping[str, Any], changed: Mapping[str, Any], path: str = "") -> list[str]:
    """The fields that differ between two configurations, as "name old -> new"; nested names have dots."""
    found = []
    for name in sorted(old.keys() | changed.keys()):
        before, after = old.get(name), changed.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differing_fields(before, after, f"{path}{name}.")
        elif _as_list(before) != _as_list(after):
            found.append(f"{path}{name} {before!r} -> {after!r}")
    return found


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_names(config_type: type[Any], values: Any, path: str) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path.rstrip('.') or 'configuration'}={values!r} is not a table of fields and values")
    known = [field.name for field in fields(config_type)]
    kinds = get_type_hints(config_type)
    for name, value in values.items():
        if name not in known:
            close = nearest_names(str(name), known, cutoff=0.6)
            hint = f"did you mean {path}{close[0]}?" if close else f"known ones are {', '.join(known) or 'none'}"
            raise ConfigError(f"unknown field {path}{name}; {hint}")
        if _is_configuration(kinds[name]) and not is_dataclass(value):
            _check_names(kinds[name], value, f"{path}{name}.")


def _first_complaint(config_type: type[Any], values: Mapping[str, Any], error: ValidationError) -> VitrailError:
    """The first error, of a configuration's own check or else of a whole field, not of a part of it."""
    first = error.errors()[0]
    kind: Any = config_type
    value: Any = values
    path = ""
    for part in first["loc"]:
        if not _is_configuration(kind):
            break
        kind, value, path = get_type_hints(kind)[str(part)], value.get(str(part)), f"{path}.{part}".removeprefix(".")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, VitrailError):
        named = {f"{path}.{name}".removeprefix("."): inner for name, inner in cause.values.items()}
        return type(cause)(cause.complaint, **named)
    if known := choices(kind):
        return ConfigError(_choose(known), **{path: value})
    return ConfigError(f"is not allowed: {first['msg'][0].lower()}{first['msg'][1:]}", **{path: value})


def _is_configuration(kind: Any) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _choose(known: tuple[str, ...]) -> str:
    return f"is not allowed; choose {' or '.join(filter(None, (', '.join(known[:-1]), known[-1])))}"
