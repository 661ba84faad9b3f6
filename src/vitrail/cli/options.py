"""One typed configuration a verb: its fields are the options, a YAML file may set them, the command line wins.

The configurations are the packages' own frozen dataclasses; this file only shows them to the command line. Nested
dataclasses are flattened (``augment.mixup_alpha`` is ``--mixup-alpha``), while the YAML file keeps their nesting.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from cyclopts import Group, Parameter, Token

from vitrail.cli.words import MAIN, option_name, split_numbers, split_words, typed_words, whole_number
from vitrail.core.config import choices, typed
from vitrail.core.errors import ConfigError, VitrailError
from vitrail.core.files import read_yaml
from vitrail.core.import_code import import_listed, imported_code
from vitrail.core.synonyms import nearest_names

Groups = Mapping[str, tuple[str, ...]]
"""Heading in the help -> dotted names of fields, or of whole nested configurations; the first match counts."""

PAIR = tuple[int, int]
"""Where a number or a pair of numbers is allowed, the option takes one word or two."""


WholeNumber = Annotated[int, Parameter(converter=whole_number)]
"""An option of a verb that has no configuration."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One field of a configuration as an option of the command line.

    Attributes:
        path: where the field is, e.g. ``("augment", "mixup_alpha")``.
        name: the keyword argument that carries it, e.g. ``mixup_alpha`` for ``--mixup-alpha``.
        kind: its type.
        default: its value when neither the file nor the command line has it.
        help: its line in the docstring of the configuration.
    """

    path: tuple[str, ...]
    name: str
    kind: Any
    default: Any
    help: str


def configured(
    defaults: Any,
    *,
    names: Mapping[str, str] | None = None,
    groups: Groups | None = None,
    expected: Callable[[Any], Mapping[str, str]] = lambda _: {},
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of a configuration, ``--config`` and ``--print-config``.

    The verb's first parameter receives the effective configuration.

    Args:
        defaults: an instance of the configuration; its values are the defaults.
        names: dotted field -> name of the option, where it is not the field's own.
        groups: how the help groups the options.
        expected: function from the configuration to what ``--print-config`` tells of its fields, by dotted name.
    """
    options = list(_options(defaults, dict(names or {})))

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        def command(*args: Any, config: Path | None = None, print_config: bool = False, **given: Any) -> None:
            chosen = {
                option.path: _one_or_pair(option, given.pop(option.name)) for option in options if option.name in given
            }
            with _errors_name_options([o for o in options if config is None or o.path in chosen]):
                effective = effective_config(defaults, config, chosen)
                if print_config:
                    print(f"{_imported_yaml()}{to_yaml(effective, expected(effective))}", end="")
                else:
                    verb(effective, *args, **given)

        command.__doc__ = verb.__doc__
        command.__name__ = verb.__name__
        command.__annotations__ = {}  # the signature below has the types
        command.__signature__ = _signature(verb, options, groups or {})  # type: ignore[attr-defined]  # it may have one
        return command

    return decorate


def effective_config(defaults: Any, file: Path | None, chosen: Mapping[tuple[str, ...], Any]) -> Any:
    """``defaults``, changed by a YAML file, changed by the ``chosen`` options (path of the field -> value).

    Raises:
        ConfigError: the file is unreadable or has an unknown key; a value is of the wrong type or not allowed.
    """
    values = asdict(defaults)
    if file is not None:
        _merge(values, _read(file), defaults, file)
    for path, value in chosen.items():
        place = values
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value
    return typed(type(defaults), values)


def to_yaml(config: Any, told: Mapping[str, str] | None = None) -> str:
    """A configuration as the YAML that ``--config`` reads.

    A configuration may have a method ``implied``: field -> what its None stands for, which becomes a comment.

    Args:
        config: a dataclass.
        told: dotted field -> comment, which wins over what is implied.
    """
    told = told or {}
    notes = (config.implied() if hasattr(config, "implied") else {}) | dict(told)
    lines = []
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            inner = {name.partition(".")[2]: text for name, text in told.items() if name.startswith(f"{field.name}.")}
            lines.append(f"{field.name}:\n{textwrap.indent(to_yaml(value, inner), '  ')}")
        else:
            line = yaml.safe_dump({field.name: _plain(value)}, sort_keys=False, allow_unicode=True)
            lines.append(f"{line.rstrip()}  # {notes[field.name]}\n" if field.name in notes else line)
    return "".join(lines)


def _imported_yaml() -> str:
    """The own code of this process as the line that ``--config`` reads; "" if there is none."""
    listed = imported_code()
    return yaml.safe_dump({"import": listed}, allow_unicode=True, width=math.inf) if listed else ""


@contextlib.contextmanager
def _errors_name_options(options: Sequence[Option]) -> Iterator[None]:
    """An error about a field tells the option, and the value as it was typed; other fields keep their dotted names."""
    try:
        yield
    except VitrailError as error:
        if not error.values:
            raise
        raise ConfigError(error.told(partial(_as_typed, options))) from error


def _as_typed(options: Sequence[Option], field: str, value: Any) -> str:
    """``--split-seed -1`` for "data.seed"; what only a part of the configuration says is found by its last names."""
    path = tuple(field.split("."))
    for length in range(len(path), 0, -1):
        fitting = [option for option in options if option.path[-length:] == path[:length]]
        if fitting:
            option = min(fitting, key=lambda one: len(one.path))
            return " ".join((option_name(".".join((option.name, *path[length:]))), typed_words(value))).rstrip()
    return f"{field}={value!r}"


def _options(defaults: Any, names: dict[str, str]) -> Iterator[Option]:
    taken: set[str] = set()
    for path, kind, default, text in sorted(_leaves(defaults), key=lambda leaf: len(leaf[0])):
        if kind == dict[str, Any]:
            continue  # values of any type have no place on a command line; the YAML file takes them
        name = names.get(".".join(path), path[-1])
        if name in taken:
            name = "_".join(path)
        taken.add(name)
        yield Option(path=path, name=name, kind=kind, default=default, help=text)


def _leaves(config: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any, str]]:
    texts = _field_docs(type(config))
    hints = get_type_hints(type(config))
    for field in fields(config):
        value, path = getattr(config, field.name), (*prefix, field.name)
        if is_dataclass(value):
            yield from _leaves(value, path)
        else:
            yield path, hints[field.name], value, texts.get(field.name, "")


def _field_docs(config_type: type[Any]) -> dict[str, str]:
    """Field -> its text in the ``Attributes:`` sections of the class and its bases; one line may name several."""
    texts: dict[str, str] = {}
    for base in reversed(config_type.__mro__):
        for entry in docstring_parser.parse(base.__doc__ or "").params if is_dataclass(base) else ():
            for name in entry.arg_name.split(","):
                text = " ".join((entry.description or "").split())
                texts[name.strip()] = text[:1].upper() + text[1:]
    return texts


def _signature(verb: Callable[..., None], options: list[Option], groups: Groups) -> inspect.Signature:
    """The verb's own parameters and one keyword for each option, group by group; ``--config``, ``--print-config``."""
    own = list(inspect.signature(verb, eval_str=True).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    places = [(heading, member) for heading, members in groups.items() for member in members]
    order = {heading: Group(heading, sort_key=10 + i) for i, heading in enumerate(groups)} | {MAIN.name: MAIN}
    added, taken = [], {option.name for option in options}
    for place, option in sorted(((_place(one, places), one) for one in options), key=lambda pair: pair[0]):
        shown = _shown(option, order[places[place][0]] if place < len(places) else MAIN, taken)
        kind: Any = tuple[int, ...] | None if _takes_pair(option) else option.kind
        added.append(inspect.Parameter(option.name, keyword, default=option.default, annotation=Annotated[kind, shown]))
    setup = Group("Configuration", sort_key=80)
    file = Parameter(group=setup, help="YAML file with values for these options; the command line wins over it.")
    show = Parameter(group=setup, help="Print the effective configuration as YAML, and stop.", negative=())
    added.append(inspect.Parameter("config", keyword, default=None, annotation=Annotated[Path | None, file]))
    added.append(inspect.Parameter("print_config", keyword, default=False, annotation=Annotated[bool, show]))
    positional = [one for one in own if one.kind is not keyword]
    return inspect.Signature([*positional, *added, *(one for one in own if one.kind is keyword)])


def _place(option: Option, places: Sequence[tuple[str, str]]) -> int:
    """Where an option stands in the help: the first member of a group that is its field, or has it."""
    dotted = f"{'.'.join(option.path)}."
    return next((i for i, (_, member) in enumerate(places) if dotted.startswith(f"{member}.")), len(places))


def _shown(option: Option, group: Group, taken: AbstractSet[str]) -> Parameter:
    """How the command line takes an option and the help shows it."""
    return Parameter(
        name=_names(option, taken),
        help=option.help,
        group=group,
        negative_iterable=(),
        converter=_converter(option.kind),
        consume_multiple=(_takes_pair(option) or _list_of(option.kind) is not None) or None,
    )


def _converter(kind: Any) -> Callable[[Any, Sequence[Token]], Any] | None:
    """What reads an option's words, where the command-line library would be too lenient or too strict."""
    if kind is int or {*get_args(kind)} == {int, NoneType}:
        return whole_number
    item = _list_of(kind)
    return split_words if item is str or choices(item) else split_numbers if item is int else None


def _list_of(kind: Any) -> Any:
    """The type of the items, where an option takes as many words as follow it."""
    lists = [one for one in (kind, *get_args(kind)) if get_origin(one) is tuple and get_args(one)[-1] is ...]
    return get_args(lists[0])[0] if lists else None


def _names(option: Option, taken: AbstractSet[str]) -> tuple[str, ...]:
    """``--runtimes``, and ``--runtime`` too, since one may be meant; not where that is another option."""
    single = option.name.removesuffix("es" if option.name.endswith("sses") else "s")
    names = (option.name, single) if _converter(option.kind) is split_words and single not in taken else (option.name,)
    return tuple(map(option_name, dict.fromkeys(names)))


def _takes_pair(option: Option) -> bool:
    return {int, PAIR} <= {*get_args(option.kind)}


def _one_or_pair(option: Option, value: Any) -> Any:
    return value[0] if _takes_pair(option) and len(value) == 1 else value


def _read(file: Path) -> dict[str, Any]:
    values = read_yaml(file, title="configuration", remedy="compare with --print-config", error=ConfigError)
    if not isinstance(values or {}, dict):
        raise ConfigError(f"configuration {file} holds no 'key: value' lines; compare with --print-config")
    values = values or {}
    import_listed(values.pop("import", []), file)
    return values


def _merge(into: dict[str, Any], values: Mapping[str, Any], config: Any, file: Path, prefix: str = "") -> None:
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if key not in into:
            raise ConfigError(f"unknown key '{dotted}' in {file}; {_nearest_key(dotted, config, prefix)}")
        if is_dataclass(inner := getattr(config, key)):
            if not isinstance(value, dict):
                names = ", ".join(field.name for field in fields(inner))
                raise ConfigError(f"key '{dotted}' in {file} is {value!r}; it needs keys of its own: {names}")
            _merge(into[key], value, inner, file, f"{dotted}.")
        else:
            into[key] = value


def _nearest_key(dotted: str, config: Any, prefix: str) -> str:
    """The nearest name among the keys of this level, also counting the last parts of deeper ones."""
    known = {prefix + ".".join(path) for path, *_ in _leaves(config)}
    known |= {prefix + field.name for field in fields(config)}
    by_last = {name.rpartition(".")[2]: name for name in sorted(known, key=len, reverse=True)}
    close = nearest_names(dotted.rpartition(".")[2], by_last, cutoff=0.5)
    return f"did you mean '{by_last[close[0]]}'?" if close else f"known: {', '.join(sorted(by_last))}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
