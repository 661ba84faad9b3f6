"""Texts of strangers: legal ones are read as before, and none takes the time or the stack of the process."""

from __future__ import annotations

import json

import pytest
import yaml

from vitrail.core.parse import MAX_DEPTH, LimitError, parse_json, parse_yaml

LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 10))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 100))


@pytest.mark.parametrize(
    "text", ["1", "null", '"a"', "[]", '{"a": [1, {"b": 2.5}], "c": "ü\u2028"}', '{"a": 1, "a": 1}']
)
def test_legal_json_is_read(text: str) -> None:
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":[', "]}]")])
def test_json_may_be_nested_up_to_the_limit(opening: str, closing: str) -> None:
    times = MAX_DEPTH // (opening.count("[") + opening.count("{"))
    assert parse_json(opening * times + "1" + closing * times)
    for deep in (times + 1, 300, 100_000):
        with pytest.raises(LimitError, match="nested more than 50 deep"):
            parse_json(opening * deep + "1" + closing * deep)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[" + "9" * 5000 + "]", "too many digits"), ('{"a": 1, "b": 0, "a": 2}', "gives the key 'a' two values")],
)
def test_json_beyond_other_limits_is_refused(text: str, reason: str) -> None:
    with pytest.raises(LimitError, match=reason):
        parse_json(text)


@pytest.mark.parametrize("text", ["{", "[1,]", "nonsense", ""])
def test_what_is_not_json_is_told_apart(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1",
        "[1, 2.5, ~, yes, 2020-01-31]",
        "base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nagain: [*b, *b]",
        "a: &e\nb: *e",
        "names: {0: a, 1: b}",
    ],
)
def test_legal_yaml_is_read(text: str) -> None:
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "line 6: it has more than 100000 values"),
        (MERGES, "it has more than 100000 values"),
        (CHAIN, "nested more than 50 deep"),
        ("[" * 5000, "line 1: it is nested more than 50 deep"),
        ("[" * 60 + "]" * 60, "nested more than 50 deep"),
        ("\n".join(f"{' ' * i}a:" for i in range(1200)), "nested more than 50 deep"),
        ("- " * 1000, "nested more than 50 deep"),
        ("a: &a {x: *a}", "an alias contains itself"),
        ("&a [*a]", "an alias contains itself"),
        ("epochs: " + "9" * 5000, "a number of 5000 digits"),
        ("epochs: 0x" + "f" * 5000, "a number of 5002 digits"),
        ("epochs: 1" + ":59" * 5000, "a number of 15001 digits"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' occurs twice"),
        ("names: {0: cat, 1: dog, 0: bird}", "the key '0' occurs twice"),
    ],
)
def test_yaml_beyond_a_limit_is_refused(text: str, reason: str) -> None:
    with pytest.raises(LimitError, match=reason):
        parse_yaml(text)


@pytest.mark.parametrize(
    "text",
    ["- [", "!!python/object/apply:os.getcwd []", "2020-99-99", "!!int x", '!!int ""', "!!bool x", "!!timestamp x"],
)
def test_what_is_not_yaml_is_an_error_of_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)
