"""docs/troubleshooting.md quotes messages that the source really has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from docs.blocks import ROOT

TEXT = (ROOT / "docs/troubleshooting.md").read_text()
ENTRIES = [line for line in TEXT.splitlines() if line.startswith("**")]
QUOTED = [quoted for line in ENTRIES for quoted in re.findall(r"`([^`]+)`", line)]


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """Every text of the source; what an f-string fills in is ``…``."""
    return [text for path in sorted((ROOT / "src").rglob("*.py")) for text in _texts(ast.parse(path.read_text()))]


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(one.value if isinstance(one, ast.Constant) else "…" for one in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_one_of_the_source(quoted: str, messages: list[str]) -> None:
    assert any(quoted in message for message in messages), "no text of the source has it"


def test_every_entry_has_a_cause_and_a_remedy() -> None:
    parts = re.split(r"^(?=\*\*)", TEXT, flags=re.MULTILINE)[1:]
    assert len(parts) == len(ENTRIES) > 25
    assert not [part.splitlines()[0] for part in parts if "- Cause: " not in part or "- Remedy: " not in part]
