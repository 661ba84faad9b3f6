"""The page on timm's models does what it says."""

from __future__ import annotations

import pytest
from docs.blocks import code_blocks

pytest.importorskip("timm")


def test_the_python_of_the_page_works(capsys: pytest.CaptureFixture[str]) -> None:
    for block in code_blocks("docs/timm.md", "python"):
        exec(compile(block.code, f"timm.md:{block.line}", "exec"), {})
    lines = ["torch.Size([1, 4]) [2, 4, 8, 16, 32]", "[(1, 48, 12, 12), (1, 192, 3, 3)]"]
    assert capsys.readouterr().out.splitlines() == lines
