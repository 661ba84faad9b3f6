"""Make the table of what every verb takes; ``python -m vitrail.cli.write_signatures`` renews it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from vitrail.cli.main import VERBS, build_app
from vitrail.cli.signatures import TABLE
from vitrail.cli.words import CONVERTERS
from vitrail.core.files import write_text


def describe_verb(verb: str) -> dict[str, Any]:
    """Help and parameters of a verb, as plain values."""
    command = build_app(verb)[verb]
    found = command.assemble_argument_collection(parse_docstring=True)
    shown = [one for one in found if one.show]
    intro = inspect.getdoc(command.default_command) or ""
    return {"help": intro.partition("\n\nArgs:")[0], "parameters": [_describe(one) for one in shown]}


def _describe(one: Any) -> dict[str, Any]:
    """One argument; what is as usual is left out."""
    parameter, kind = one.parameter, one.field_info.kind
    negatives = list(one.negatives)
    names = [name for name in one.names if name not in negatives]
    variadic = kind is inspect.Parameter.VAR_POSITIONAL
    entry: dict[str, Any] = {
        "names": names,
        "kind": kind.name,
        "type": type_text(get_args(one.hint)[0] if variadic else one.hint),
        "help": parameter.help,
    }
    if not one.field_info.required and not variadic:
        default = one.field_info.default
        entry["default"] = str(default) if isinstance(default, Path) else default
    if kind is inspect.Parameter.KEYWORD_ONLY:
        entry["group"] = [parameter.group[0].name, parameter.group[0].sort_key]
    optional = {
        "negatives": negatives,
        "consume_multiple": parameter.consume_multiple,
        "converter": next((name for name, known in CONVERTERS.items() if known is parameter.converter), None),
        "allow_leading_hyphen": parameter.allow_leading_hyphen,
    }
    return entry | {name: value for name, value in optional.items() if value}


def type_text(kind: Any) -> str:
    """A type as :func:`vitrail.cli.signatures.type_of` reads it."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " | ".join(map(type_text, parts))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, parts))}]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(type_text, parts))}]"
    return {NoneType: "None", ...: "..."}.get(kind) or kind.__name__


def table_text(table: dict[str, Any]) -> str:
    """The table as JSON with one parameter a line, so that a change of one is a change of one line."""
    verbs = []
    for verb, entry in table.items():
        text, *lines = (json.dumps(one, ensure_ascii=False) for one in (entry["help"], *entry["parameters"]))
        parameters = ",\n".join(lines)
        verbs.append(f'"{verb}": {{"help": {text},\n"parameters": [\n{parameters}]}}')
    return "{" + ",\n".join(verbs) + "}\n"


if __name__ == "__main__":
    write_text(TABLE, table_text({verb: describe_verb(verb) for verb in VERBS}))
