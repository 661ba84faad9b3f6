"""What every verb takes, from a table that is read in milliseconds: help and mistakes need no PyTorch.

``signatures.json`` beside this file is made from the verbs themselves; a test compares the two, and
``python -m vitrail.cli.write_signatures`` renews it.
"""

from __future__ import annotations

import ast
import inspect
import json
import keyword
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from vitrail.cli.suggestions import suggest_option
from vitrail.cli.words import CONVERTERS, STANDARD_INPUT
from vitrail.core.errors import ConfigError

TABLE = Path(__file__).with_name("signatures.json")

TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "Path": Path,
    "tuple": tuple,
    "dict": dict,
    "Literal": Literal,
}


@cache
def signatures() -> dict[str, Any]:
    """Verb -> ``help``, and ``parameters`` as :func:`vitrail.cli.write_signatures.describe_verb` makes them."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def option_names(verb: str) -> list[str]:
    """Every option of a verb, with its other names and its negative form."""
    found = signatures()[verb]["parameters"]
    names = [name for one in found for name in (*one["names"], *one.get("negatives", ()))]
    return [name for name in names if name.startswith("-")]


def unknown_option(word: str, verb: str) -> str:
    """The message on an option that a verb does not have."""
    return f"unknown option {word}; {suggest_option(word, verb, {name: option_names(name) for name in signatures()})}"


def stand_in(verb: str) -> Callable[..., bool]:
    """A function with the signature and the help of a verb, which checks words and does nothing.

    It returns True, and raises ConfigError where a path among its words is an option that the verb does not have.
    """

    def command(*words: Any, **_: Any) -> bool:
        for word in words:
            if isinstance(word, str) and word.startswith("-") and word != STANDARD_INPUT:
                raise ConfigError(f"{unknown_option(word, verb)} (a file of that name: ./{word})")
        return True

    entry = signatures()[verb]
    command.__name__, command.__doc__ = verb, entry["help"]
    command.__annotations__ = {}  # the signature below has the types
    command.__signature__ = inspect.Signature([_parameter(one) for one in entry["parameters"]])  # type: ignore[attr-defined]  # functions may have one
    return command


def _parameter(one: dict[str, Any]) -> inspect.Parameter:
    several = one.get("consume_multiple")
    chosen: dict[str, Any] = {
        "help": one["help"],
        "negative": one.get("negatives", ()),
        "consume_multiple": tuple(several) if several else None,
        "converter": CONVERTERS.get(one.get("converter", "")),
        "allow_leading_hyphen": one.get("allow_leading_hyphen", False),
    }
    if one["kind"] == "KEYWORD_ONLY":
        chosen |= {"name": one["names"], "group": Group(one["group"][0], sort_key=one["group"][1])}
    default = one.get("default", inspect.Parameter.empty)
    name = one["names"][0].strip("-").replace("-", "_").lower()
    return inspect.Parameter(
        f"{name}_" if keyword.iskeyword(name) else name,
        getattr(inspect.Parameter, one["kind"]),
        default=tuple(default) if isinstance(default, list) else default,
        annotation=Annotated[type_of(one["type"]), Parameter(**chosen)],
    )


def type_of(text: str) -> Any:
    """The type that ``text`` names, such as ``tuple[int, ...] | None``; nothing is executed."""
    return _type_of(ast.parse(text, mode="eval").body)


def _type_of(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return TYPES[node.id]
    if isinstance(node, ast.Constant):  # None, ..., or a word of a Literal
        return node.value
    if isinstance(node, ast.BinOp):
        return _type_of(node.left) | _type_of(node.right)
    assert isinstance(node, ast.Subscript)
    inner = node.slice
    return _type_of(node.value)[tuple(map(_type_of, inner.elts)) if isinstance(inner, ast.Tuple) else _type_of(inner)]
