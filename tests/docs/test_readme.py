"""README.md, executed. Where a command would take long, a comment above it says what a test puts in its place."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs.blocks import ROOT, Block, code_blocks

from vitrail.cli.main import VERBS
from vitrail.data import DataConfig, load_data

pytestmark = pytest.mark.timeout(900)  # a block is several commands, each of which starts PyTorch

SHELL = code_blocks("README.md", "sh")
PYTHON = code_blocks("README.md", "python")


def _of_kind(blocks: list[Block], kind: str) -> list[Block]:
    return [block for block in blocks if block.kind == kind]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README supposes: a folder of photographs, and some more to classify."""
    folder = tmp_path_factory.mktemp("readme")
    images = load_data(DataConfig()).train
    (folder / "holiday").mkdir()
    for index, (record, label) in enumerate(zip(images.records, images.labels.tolist(), strict=True)):
        place = folder / "photos" / f"sign{label}" if index % 8 else folder / "holiday"
        if label < 3:
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index}.jpg").write_bytes(record.source)
    return folder


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _run_shell(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return _run(["bash", "-euo", "pipefail", "-c", code], folder)


@pytest.mark.parametrize("block", _of_kind(SHELL, "fast"), ids=lambda block: f"line {block.line}")
def test_commands_work(block: Block, folder: Path) -> None:
    done = _run_shell(block.quick(), folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", _of_kind(SHELL, "fails"), ids=lambda block: f"line {block.line}")
def test_mistakes_are_told_in_one_line(block: Block, folder: Path) -> None:
    status = re.search(r"exit status (\d+)", block.note)
    words = re.findall(r'"([^"]+)"', block.note)
    assert status is not None
    done = _run_shell(block.code, folder)
    assert done.returncode == int(status[1])
    assert len(done.stderr.strip().splitlines()) == 1
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize(
    "block",
    [
        *_of_kind(PYTHON, "fast"),
        *(pytest.param(block, marks=pytest.mark.slow) for block in _of_kind(PYTHON, "slow")),
    ],
    ids=lambda block: f"line {block.line}",
)
def test_python_works(block: Block, folder: Path) -> None:
    done = _run([sys.executable, "-c", block.quick()], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("block", _of_kind(SHELL, "slow"), ids=lambda block: f"line {block.line}")
def test_slow_commands_work(block: Block, tmp_path: Path, folder: Path) -> None:
    for name in ("photos", "holiday"):
        (tmp_path / name).symlink_to(folder / name)
    done = _run_shell(block.quick(), tmp_path)
    assert done.returncode == 0, done.stderr
    if re.search(r"vitrail (run|report) ", block.code):
        assert (tmp_path / "runs/photos/report.html").stat().st_size > 10_000


def test_the_table_of_verbs_is_complete() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert set(rows) == set(VERBS)


def test_what_is_not_run_is_only_the_installation_and_a_download() -> None:
    assert [block.code for block in _of_kind(SHELL, "not run")] == ["pip install .\n", "make demo\n"]
    assert ['weights="pretrained"' in block.code for block in _of_kind(PYTHON, "not run")] == [True]
    assert re.search(r"^demo:.*\n\t\$\(BIN\)/vitrail demo$", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_first_screen_says_what_a_stranger_looks_for() -> None:
    text = (ROOT / "README.md").read_text()
    first = text[: text.index("## See the whole way first")]
    assert "**fine-tune**" in first
    assert re.search(r"vitrail train .*--weights pretrained.*\nvitrail predict ", first)
    assert all((ROOT / picture).stat().st_size < 100_000 for picture in re.findall(r"\((docs/pictures/[^)]+)\)", first))
    assert len(first.splitlines()) < 90


@pytest.mark.slow
def test_the_demo_keeps_its_promises(tmp_path: Path) -> None:
    done = _run_shell("vitrail demo --json", tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["top1"] >= 0.85
    tops = {row["variant"]: row["top1"] for row in facts["files"] if row["file"].endswith(".onnx")}
    assert tops.keys() == {"float", "int8"}
    assert tops["int8"] >= facts["top1"] - 0.01
    assert all(row["latency_ms"] > 0 for row in facts["files"])
    page = (tmp_path / "runs/demo/report.html").read_text()
    assert not re.search(r"""(?:src|href)=["']https?://[^"']+\.(?:js|css|png|svg|woff2?)""", page)
