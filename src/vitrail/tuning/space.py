"""The space of a tune: the settings that vary, each with its range or its choices.

It is checked as a whole, against the type and the limits of every field, before anything is trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from vitrail.core.config import choices as words_of
from vitrail.core.errors import ConfigError
from vitrail.core.files import json_text, read_yaml
from vitrail.core.parse import parse_yaml
from vitrail.core.paths import user_path
from vitrail.runs.settings import field_path
from vitrail.training import TrainConfig

OPEN = ("model_fields", "options")
"""Fields with names of their own: those of a family, and those of a task."""

MEASURED = ("data", "task", "seed", "keep", "keep_score")
"""Fields that decide what is measured, or draw the chance in it."""

PLACE = (*("num_workers", "accelerator", "devices", "num_nodes", "strategy", "deterministic", "loggers"), "minutes")
"""Fields that decide where and how long is computed."""

Definition = Mapping[str, Any] | Sequence[Any] | str
"""A setting's values as people write them: a text, a table with low, high and log, or a list."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A setting that varies.

    Attributes:
        path: where it is in the training's configuration, e.g. ``("augment", "mixup_alpha")``.
        low, high: ends of a range; 0 for choices.
        log: whether the logarithm is drawn evenly.
        whole: whether the range has whole numbers alone.
        choices: values to choose from; empty for a range.
    """

    path: tuple[str, ...]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """The path with dots."""
        return ".".join(self.path)

    @property
    def title(self) -> str:
        """Words for tables."""
        return self.path[-1].replace("_", " ")

    @property
    def definition(self) -> dict[str, Any] | list[Any]:
        """As plain values, which a file may have."""
        if self.choices:
            return [list(one) if isinstance(one, tuple) else one for one in self.choices]
        return {"low": self.low, "high": self.high, "log": self.log}

    def __str__(self) -> str:
        if self.choices:
            return f"{self.title} {', '.join(map(value_text, self.choices))}"
        return f"{self.title} {value_text(self.low)} to {value_text(self.high)}{' (log)' * self.log}"

    def stored(self, value: Any) -> Any:
        """A value as the storage holds it; choices are texts there, since they may be lists."""
        return json_text(value) if self.choices else value

    def value_of(self, stored: Any) -> Any:
        """The value of what the storage holds."""
        return next((one for one in self.choices if json_text(one) == stored), stored) if self.choices else stored

    def nearest(self, value: Any) -> Any:
        """The value of this axis that is nearest to one of the setting; the first choice, where nothing is near."""
        if self.choices:
            wanted = json_text(value)
            return next((one for one in self.choices if json_text(one) == wanted), self.choices[0])
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.low
        near = min(max(value, self.low), self.high)
        return round(near) if self.whole else float(near)


def value_text(value: Any) -> str:
    """A value for people."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, tuple | list):
        return " ".join(map(value_text, value))
    return "none" if value is None else str(value)


def read_space(
    space: str | Path | Mapping[str, Any] | None, vary: Sequence[str], config: TrainConfig
) -> tuple[Axis, ...]:
    """The settings that somebody lets vary.

    Args:
        space: YAML file with a row for each setting, or its contents; None without one.
        vary: settings as ``NAME=VALUES``, which win over those of the file.
        config: what is the same in all trials.

    Raises:
        ConfigError: a setting is unknown, cannot vary, or has values that are not allowed; the message has the remedy.
    """
    rows: dict[str, Any] = {}
    if isinstance(space, str | Path):
        values = read_yaml(user_path(space), title="space", error=ConfigError)
        if not isinstance(values, dict) or not values:
            raise ConfigError(
                f"space {space} has no rows such as 'learning_rate: {{low: 1e-5, high: 1e-3, log: true}}'"
            )
        rows = {str(name): value for name, value in values.items()}
    elif space is not None:
        rows = dict(space)
    given = [row.partition("=") for row in vary]
    if wrong := [name for name, equals, text in given if not (name and equals and text)]:
        raise ConfigError(f"--vary {wrong[0]} is not NAME=VALUES, such as learning_rate=1e-5:1e-3:log or lora=0,4,8")
    names = [name for name, _, _ in given]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--vary has {twice[0]} twice; write all its values into one")
    rows |= {name: text for name, _, text in given}
    axes = {axis.name: axis for axis in (_axis(name, value, config) for name, value in rows.items())}
    return tuple(axes.values())


def with_values(config: TrainConfig, values: Mapping[tuple[str, ...], Any]) -> TrainConfig:
    """A configuration with other values.

    Args:
        config: the configuration.
        values: path of a field -> value.

    Raises:
        ConfigError: a value is not allowed, or does not go together with another one.
    """
    plain = config.to_dict()
    for path, value in values.items():
        place = plain
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = list(value) if isinstance(value, tuple) else value
    return TrainConfig.from_dict(plain)


def value_at(config: TrainConfig, path: Sequence[str]) -> Any:
    """The value of a field; None where a table of names does not have it."""
    place: Any = config
    for part in path:
        place = place.get(part) if isinstance(place, dict) else getattr(place, part)
    return place


def num_combinations(space: Sequence[Axis]) -> float:
    """The number of different settings; infinite where a range has fractions."""
    counts = (len(a.choices) or (a.high - a.low + 1 if a.whole else math.inf) for a in space)
    return math.prod(counts)


def _axis(name: str, values: Any, config: TrainConfig) -> Axis:
    path, kind = _place(name)
    if isinstance(values, str):
        values = _parsed(name, values, kind)
    if isinstance(values, Mapping):
        return _range(path, values, kind, config)
    if not isinstance(values, list | tuple):
        values = [values]
    chosen = [_checked(config, path, one) for one in values]
    texts = [json_text(one) for one in chosen]
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise ConfigError(f"{name} has {twice[0]} twice; give each value once")
    if len(chosen) < 2:
        one = value_text(chosen[0]) if chosen else "no value"
        raise ConfigError(
            f"{name} has only {one}, so that nothing varies; give several values, or a range "
            "(in YAML: {low: 2, high: 8}), or set it with its option"
        )
    return Axis(path=path, choices=tuple(chosen))


def _place(name: str) -> tuple[tuple[str, ...], Any]:
    """Path and type of the field that a row names.

    Raises:
        ConfigError: there is no such field, or it cannot vary.
    """
    parts = name.strip().lstrip("-").replace("-", "_").split(".")
    if parts[0] == "option":
        parts[0] = "options"
    if parts[0] in OPEN:
        if len(parts) != 2 or not parts[1]:
            raise ConfigError(f"{name} is a table; vary one of its names, such as {parts[0]}.NAME")
        return tuple(parts), Any
    path = field_path(TrainConfig, parts[-1])
    if path[-len(parts) :] != tuple(parts):
        raise ConfigError(f"unknown setting {name}; did you mean {'.'.join(path)}?")
    if path[0] in MEASURED:
        raise ConfigError(f"{name} cannot vary: it decides what is measured, and scores could not be compared")
    if path[0] in PLACE:
        raise ConfigError(f"{name} cannot vary: it decides where or how long is computed, not what is learnt")
    kind: Any = TrainConfig
    for part in path:
        kind = get_type_hints(kind)[part]
    if is_dataclass(kind):
        raise ConfigError(f"{name} has settings of its own: {', '.join(get_type_hints(kind))}; vary these")
    return path, kind


def _parsed(name: str, text: str, kind: Any) -> Any:
    """What a text means: a range as ``{low, high, log}``, or a list of values."""
    parts = [part.strip() for part in text.split(":")]
    numbers = [_number(part) for part in parts[:2]]
    if len(parts) > 1 and (_is_numeric(kind) or None not in numbers) and "://" not in text:
        if None in numbers or len(parts) > 3 or parts[2:] not in ([], ["log"], ["linear"]):
            raise ConfigError(f"{name}={text} is no range LOW:HIGH or LOW:HIGH:log; values are written A,B,C")
        return {"low": numbers[0], "high": numbers[1], "log": parts[2:] == ["log"]}
    return [_word(part.strip(), kind) for part in text.split(",") if part.strip()]


def _word(text: str, kind: Any) -> Any:
    """A value that was typed; several words are a list."""
    if text.lower() in ("none", "null") and (kind is Any or type(None) in get_args(kind)):
        return None
    if kind is Any:
        return parse_yaml(text)
    return text.split() if " " in text and not words_of(kind) else text


def _range(path: tuple[str, ...], values: Mapping[str, Any], kind: Any, config: TrainConfig) -> Axis:
    name = ".".join(path)
    if unknown := sorted(values.keys() - {"low", "high", "log"}):
        raise ConfigError(f"{name} has {unknown[0]!r}; a range has low, high, and log (true or false)")
    if kind is not Any and not _is_numeric(kind):
        known = words_of(kind)
        raise ConfigError(
            f"{name} is no number, so it has no range; list its values{': ' * bool(known)}{', '.join(known)}"
        )
    ends = [_number(values.get(end)) for end in ("low", "high")]
    if None in ends or not isinstance(log := values.get("log", False), bool):
        raise ConfigError(f"{name}={dict(values)} is no range; give low and high as numbers, and log as true or false")
    low, high = (float(end) for end in ends if end is not None)
    whole = all(isinstance(end, int) for end in ends) if kind is Any else float not in {kind, *get_args(kind)}
    if whole and not (low.is_integer() and high.is_integer()):
        raise ConfigError(f"{name} is a whole number; {low:g} to {high:g} is no range of them")
    if low >= high:
        told = (
            "has one value, so that nothing varies" if low == high else "is no range: its low end is above its high one"
        )
        raise ConfigError(f"{name} from {low:g} to {high:g} {told}; give low < high, or set it with its option")
    if log and low <= 0:
        raise ConfigError(f"{name} from {low:g} has no logarithm; begin above 0, or leave out log")
    checked = [_checked(config, path, int(end) if whole else end) for end in (low, high)]
    return Axis(path=path, low=checked[0], high=checked[1], log=log, whole=whole)


def _checked(config: TrainConfig, path: tuple[str, ...], value: Any) -> Any:
    """A value in the type of its field, within its limits.

    Raises:
        ConfigError: it is not allowed.
    """
    return value_at(with_values(config, {path: value}), path)


def _is_numeric(kind: Any) -> bool:
    return bool({int, float} & {kind, *get_args(kind)})


def _number(value: Any) -> float | int | None:
    """A finite number, also of a text; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(value) if isinstance(value, int) else float(value)
    except ValueError:
        return None
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
        number = int(value)
    return number if math.isfinite(number) else None
