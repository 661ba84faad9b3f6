"""docs/tutorials, followed step by step in one folder: commands, Python and the files that a page shows.

A comment above a block says what a test does with it: ``file NAME`` writes it, ``not run (why)`` leaves it out, and
``"old" -> "new"`` takes quicker settings.
"""

from __future__ import annotations

import contextlib
import io
import shlex
from pathlib import Path

import pytest
import torch
from docs.blocks import ROOT, Block, code_blocks
from safetensors.torch import save_file

from vitrail.cli.main import main
from vitrail.models import create_model

TUTORIALS = sorted(page.stem for page in (ROOT / "docs/tutorials").glob("*.md") if page.stem != "index")
SHOWS = {
    "fine-tune": "runs/photos/report.html",
    "boxes-from-cvat": "drawn/000.png",
    "quantize-a-timm-model": "model.int8.onnx",
    "measure-on-a-phone": "device/answer.py",
    "own-token-mixer": "runs/cross/model.int8.onnx",
    "compare-for-a-paper": "runs/compare/mixing/comparison.tex",
}
"""Tutorial -> a file that it leaves."""


def blocks_of(name: str) -> list[Block]:
    return code_blocks(f"docs/tutorials/{name}.md", "sh", "python", "yaml")


def follow(block: Block, names: dict[str, object], page: str) -> None:
    """Do what a block says."""
    code = block.quick()
    if block.note.startswith("file "):
        Path(block.note.split(";")[0].split()[1]).write_text(code)
    elif block.language == "sh":
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            assert words[0] == "vitrail", line
            told = io.StringIO()
            with contextlib.redirect_stderr(told):
                assert main(words[1:]) == 0, f"{line}: {told.getvalue()}"
    else:
        exec(compile(code, f"{page}:{block.line}", "exec"), names)


def test_every_tutorial_is_followed() -> None:
    assert SHOWS.keys() == set(TUTORIALS)


@pytest.mark.parametrize("name", TUTORIALS)
def test_what_is_not_followed_is_an_installation_or_waits(name: str) -> None:
    blocks = blocks_of(name)
    left_out = [block for block in blocks if block.kind == "not run"]
    assert len(left_out) <= 1 < len(blocks)
    assert all(block.note.startswith("not run (") for block in left_out)
    assert all(block.language != "yaml" or block.note.startswith("file ") for block in blocks)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_works(name: str, own_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    save_file(create_model("edgevit_nano_stride2", num_classes=10).state_dict(), "weights.safetensors")
    names: dict[str, object] = {}
    for block in blocks_of(name):
        if block.kind != "not run":
            follow(block, names, name)
    assert (tmp_path / SHOWS[name]).stat().st_size > 0
