"""JSON and YAML from texts that anybody may have written: limits on depth, size and digits, and no contradictions."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.composer import Composer

MAX_DEPTH = 50
"""Deepest nesting of lists and objects; COCO needs 6."""

MAX_NODES = 100_000
"""Most values of a YAML text, with aliases written out."""

MAX_DIGITS = 300
"""Longest number of a YAML text; with more digits it would not fit into a float."""


class LimitError(ValueError):
    """A text is well-formed, but goes beyond a limit, or contradicts itself."""


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        LimitError: it is nested too deep, has a number of too many digits, or gives one key two values.
        json.JSONDecodeError: it is not JSON.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise LimitError(f"it is nested more than {MAX_DEPTH} deep") from None
    except (json.JSONDecodeError, LimitError):
        raise
    except ValueError:
        raise LimitError("it has a number of too many digits") from None
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        insides = (whole.values() if type(whole) is dict else whole for whole in level)
        level = [part for inside in insides for part in inside if type(part) in (dict, list)]
        if not level:
            return value
    raise LimitError(f"it is nested more than {MAX_DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        for name, value in pairs:
            if values[name] != value:
                raise LimitError(f"it gives the key {name!r} two values")
    return values


def parse_yaml(text: str) -> Any:
    """The value of a YAML text of plain values: YAML's safe subset, no Python objects.

    Raises:
        LimitError: it is nested too deep, has too many values with aliases written out, contains itself, has a number
            of too many digits, or gives one key two values.
        yaml.YAMLError: it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, LimitError):
        raise
    except Exception as error:  # PyYAML raises many kinds for tagged values, such as dates that do not exist
        raise yaml.YAMLError(f"a value cannot be read ({error or type(error).__name__})") from error


def compose_yaml(text: str) -> yaml.Node | None:
    """The nodes of a YAML text, which keep their lines and the spelling of their values; None of an empty text.

    Raises:
        LimitError, yaml.YAMLError: as :func:`parse_yaml`.
    """
    node: yaml.Node | None = _Loader(text).get_single_node()
    return node


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]  # a base that is chosen
    """PyYAML's safe loader with limits, which hold before anything is made of the text.

    libyaml parses five times faster; its composer cannot be limited, so that PyYAML's own takes its place.
    """

    get_single_node = Composer.get_single_node
    compose_document = Composer.compose_document
    compose_scalar_node = Composer.compose_scalar_node
    compose_sequence_node = Composer.compose_sequence_node
    compose_mapping_node = Composer.compose_mapping_node

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.anchors: dict[str, yaml.Node] = {}
        self.level = self.count = 0
        self.extents: dict[yaml.Node, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        line = self.peek_event().start_mark.line + 1
        self.level, self.count = self.level + 1, self.count + 1
        if self.level > MAX_DEPTH + 1:
            raise LimitError(f"line {line}: it is nested more than {MAX_DEPTH} deep")
        if self.count > MAX_NODES:
            raise LimitError(f"line {line}: it has more than {MAX_NODES} values")
        node = Composer.compose_node(self, parent, index)
        self.level -= 1
        if node is not None and not is_alias:
            self.extents[node] = self._extent(node)
        elif node not in self.extents:
            raise LimitError(f"line {line}: an alias contains itself")
        return node

    def _extent(self, node: yaml.Node) -> tuple[int, int]:
        """(number of values, depth) of a node, with aliases written out."""
        line = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            if node.tag.endswith((":int", ":float")) and len(node.value) > MAX_DIGITS:
                raise LimitError(f"line {line}: it has a number of {len(node.value)} digits")
            return 1, 0
        inner = node.value
        if isinstance(node, yaml.MappingNode):
            _check_keys([key for key, _ in node.value])
            inner = [part for pair in node.value for part in pair]
        extents = [self.extents[part] for part in inner]
        count, depth = 1 + sum(count for count, _ in extents), 1 + max((depth for _, depth in extents), default=0)
        if count > MAX_NODES:
            raise LimitError(f"line {line}: it has more than {MAX_NODES} values, with aliases written out")
        if depth > MAX_DEPTH:
            raise LimitError(f"line {line}: it is nested more than {MAX_DEPTH} deep")
        return count, depth


def _check_keys(keys: list[yaml.Node]) -> None:
    seen: set[Hashable] = set()
    for key in keys:
        name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else key
        if name in seen and not key.tag.endswith(":merge"):
            raise LimitError(f"line {key.start_mark.line + 1}: the key '{key.value}' occurs twice")
        seen.add(name)
