"""The code blocks of a Markdown page, so that what a page tells people to do is done by a test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"(?:^<!-- test: (?P<note>.+?) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: the word after the fence.
        code: what is inside.
        note: what an HTML comment ``<!-- test: ... -->`` in the line above says, e.g. ``slow``; "" if there is none.
        line: where it starts in the page, for messages.
    """

    language: str
    code: str
    note: str
    line: int


def code_blocks(page: str, *languages: str) -> list[Block]:
    """Blocks of a page (path from the root of the repository) in any of the languages, in order."""
    text = (ROOT / page).read_text()
    return [
        Block(found["language"], found["code"], found["note"] or "", text[: found.start()].count("\n") + 1)
        for found in _BLOCK.finditer(text)
        if found["language"] in languages
    ]
