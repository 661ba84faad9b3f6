"""One typed configuration a verb: its fields are the options, a YAML file may set them, the command line wins.

The configurations are the packages' own frozen dataclasses; this file only shows them to the command line. Nested
dataclasses are flattened (``augment.mixup_alpha`` is ``--mixup-alpha``), while the YAML file keeps their nesting.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import docstring_parser
import yaml
from cyclopts import Group, Parameter, Token
from pydantic import TypeAdapter, ValidationError

from vitrail.core.errors import ConfigError

Groups = Mapping[str, tuple[str, ...]]
"""Heading in the help -> dotted names of fields, or of whole nested configurations."""

LISTS = (tuple[str, ...], tuple[float, ...], tuple[int, ...])
"""Types of options that take as many words as follow them."""

PAIR = tuple[int, int]
"""Where a number or a pair of numbers is allowed, the option takes one word or two."""


def _whole_number(kind: type[int], tokens: Sequence[Token]) -> int:
    """The command-line library on its own would round 1.5 to 2 and say nothing."""
    return _as_int(kind, tokens[0].value)


def _as_int(kind: Callable[[str], int], word: str) -> int:
    try:
        return kind(word)
    except ValueError:
        raise ValueError(f'"{word}" is not a whole number') from None


def split_words(_kind: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """``a,b`` and ``a b`` alike."""
    return tuple(word for token in tokens for word in token.value.split(",") if word)


def _split_numbers(kind: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    return tuple(_as_int(int, word) for word in split_words(kind, tokens))


CONVERTERS: dict[Any, Callable[[Any, Sequence[Token]], Any]] = {
    int: _whole_number,
    tuple[int, ...]: _split_numbers,
    tuple[str, ...]: split_words,
}
"""Type of an option -> what reads its words, where the command-line library would be too lenient or too strict."""

WholeNumber = Annotated[int, Parameter(converter=_whole_number)]
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
    defaults: Any, *, names: Mapping[str, str] | None = None, groups: Groups | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of a configuration, ``--config`` and ``--print-config``.

    The verb's first parameter receives the effective configuration.

    Args:
        defaults: an instance of the configuration; its values are the defaults.
        names: dotted field -> name of the option, where it is not the field's own.
        groups: how the help groups the options.
    """
    options = list(_options(defaults, dict(names or {})))

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        def command(*args: Any, config: Path | None = None, print_config: bool = False, **given: Any) -> None:
            chosen = {
                option.path: _one_or_pair(option, given.pop(option.name)) for option in options if option.name in given
            }
            effective = effective_config(defaults, config, chosen)
            if print_config:
                print(to_yaml(effective), end="")
            else:
                verb(effective, *args, **given)

        command.__doc__ = verb.__doc__
        command.__name__ = verb.__name__
        command.__annotations__ = {}  # the signature below has the types
        command.__signature__ = _signature(verb, options, groups or {})  # type: ignore[attr-defined]
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
    try:
        return TypeAdapter(type(defaults)).validate_python(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error


def to_yaml(config: Any) -> str:
    """A configuration as the YAML that ``--config`` reads."""
    plain: str = yaml.safe_dump(_plain(asdict(config)), sort_keys=False, allow_unicode=True)
    return plain


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
    """The verb's own parameters, then one keyword for each option, then ``--config`` and ``--print-config``."""
    own = list(inspect.signature(verb, eval_str=True).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    order = {heading: Group(heading, sort_key=10 + i) for i, heading in enumerate(groups)}
    added = []
    for option in options:
        dotted = f"{'.'.join(option.path)}."
        heading = next((h for h, members in groups.items() if any(dotted.startswith(f"{m}.") for m in members)), None)
        kind: Any = tuple[int, ...] | None if _takes_pair(option) else option.kind
        shown = Parameter(
            name=_names(option),
            help=option.help,
            group=order[heading] if heading else None,
            negative_iterable=(),
            converter=CONVERTERS.get(option.kind),
            show_default=_default_words,
            consume_multiple=(_takes_pair(option) or bool({kind, *get_args(kind)} & {*LISTS})) or None,
        )
        added.append(inspect.Parameter(option.name, keyword, default=option.default, annotation=Annotated[kind, shown]))
    setup = Group("Configuration", sort_key=80)
    file = Parameter(group=setup, help="YAML file with values for these options; the command line wins over it.")
    show = Parameter(group=setup, help="Print the effective configuration as YAML, and stop.", negative=())
    added.append(inspect.Parameter("config", keyword, default=None, annotation=Annotated[Path | None, file]))
    added.append(inspect.Parameter("print_config", keyword, default=False, annotation=Annotated[bool, show]))
    return inspect.Signature([*own, *added])


def _names(option: Option) -> tuple[str, ...]:
    """``--runtimes``, and ``--runtime`` too, since one may be meant."""
    name = f"--{option.name.replace('_', '-')}"
    return (name, name.removesuffix("s")) if option.kind == tuple[str, ...] and name.endswith("s") else (name,)


def _takes_pair(option: Option) -> bool:
    return {int, PAIR} <= {*get_args(option.kind)}


def _one_or_pair(option: Option, value: Any) -> Any:
    return value[0] if _takes_pair(option) and len(value) == 1 else value


def _default_words(value: Any) -> str:
    """A default as it would be typed."""
    return (
        " ".join(map(_default_words, value))
        if isinstance(value, tuple)
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read configuration {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {file} is not YAML: {error}; compare with --print-config") from error
    if not isinstance(values or {}, dict):
        raise ConfigError(f"configuration {file} holds no 'key: value' lines; compare with --print-config")
    return values or {}


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
    close = difflib.get_close_matches(dotted.rpartition(".")[2], by_last, n=1, cutoff=0.5)
    return f"did you mean '{by_last[close[0]]}'?" if close else f"known: {', '.join(sorted(by_last))}"


def _sentence(error: ValidationError) -> str:
    """The first complaint, in one line; the configuration's own check speaks for itself."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return str(cause)
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}={first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
