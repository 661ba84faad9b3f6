"""The code blocks of a Markdown page, so that what a page tells people to do is done by a test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"(?:^<!-- test: (?P<note>.+?) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)

_EXCHANGE = re.compile(r"\"([^\"]+)\" -> \"([^\"]+)\"|'([^']+)' -> '([^']+)'")
KINDS = ("fast", "slow", "fails", "not run")


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

    @property
    def kind(self) -> str:
        """What a test does with it: ``fast`` (unless the note says otherwise), ``slow``, ``fails`` or ``not run``."""
        return next((kind for kind in KINDS if self.note.startswith(kind)), "fast")

    def quick(self) -> str:
        """The code with the quicker settings that the note names, each as ``"old" -> "new"``."""
        code = self.code
        for groups in _EXCHANGE.findall(self.note):
            old, new = (text for text in groups if text)
            assert old in code, f"line {self.line}: {old!r} is not in the block"
            code = code.replace(old, new)
        return code


def code_blocks(page: str, *languages: str) -> list[Block]:
    """Blocks of a page (path from the root of the repository) in any of the languages, in order."""
    text = (ROOT / page).read_text()
    return [
        Block(found["language"], found["code"], found["note"] or "", text[: found.start()].count("\n") + 1)
        for found in _BLOCK.finditer(text)
        if found["language"] in languages
    ]
