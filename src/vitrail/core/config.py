"""Configurations as frozen dataclasses: conversion from plain values, checks and comparison."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from vitrail.core.errors import ConfigError, VitrailError

T = TypeVar("T")


def typed(config_type: type[T], values: Mapping[str, Any]) -> T:
    """A configuration from plain values of JSON, YAML or the command line.

    Raises:
        ConfigError: an unknown field, or a value of the wrong type.
        VitrailError: the configuration's own check failed; fields have their full names (``data.seed``).
    """
    _check_names(config_type, values, "")
    try:
        return TypeAdapter(config_type).validate_python(values)
    except ValidationError as error:
        raise _first_complaint(config_type, values, error) from error


def choices(kind: Any) -> tuple[str, ...]:
    """The words of a ``Literal`` type, also inside a tuple or beside None; empty for other types."""
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    return tuple(dict.fromkeys(word for inner in get_args(kind) for word in choices(inner)))


def check_choices(config: Any) -> None:
    """Check the fields of ``Literal`` types, for configurations that are made in Python.

    Raises:
        ConfigError: a field has another value; the message lists the choices.
    """
    for name, kind in get_type_hints(type(config)).items():
        value, known = getattr(config, name), choices(kind)
        words = value if isinstance(value, tuple) else () if value is None else (value,)
        if known and not {*words} <= {*known}:
            raise ConfigError(_choose(known), **{name: value})


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
            close = difflib.get_close_matches(str(name), known, n=1)
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
